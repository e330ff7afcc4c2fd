// biome-ignore-all lint/suspicious/noTemplateCurlyInString: variables of Dockerfiles
import assert from "node:assert/strict";
import { test } from "node:test";
import { EnvList } from "@kiln/llb";
import { expand, tryExpand } from "./lex.ts";

const env = EnvList.from(["P=/a/b/c.tar.gz", "E=", "X=x y", "S=a*b?c"]);
const lex = { escapeToken: "\\" };

test("every operator", () => {
  const cases: [string, string][] = [
    ["$P", "/a/b/c.tar.gz"],
    ["${P}x$E", "/a/b/c.tar.gzx"],
    ["${N:-d} ${E:-d} ${E-d}", "d d "],
    ["${N:+d}${E:+d}${E+d}${X:+d}", "dd"],
    ["${P#*/} ${P##*/}", "a/b/c.tar.gz c.tar.gz"],
    ["${P%.*} ${P%%.*}", "/a/b/c.tar /a/b/c"],
    ["${P/a/z} ${P//[/x} ${P//./_}", "/z/b/c.tar.gz /a/b/c.tar.gz /a/b/c_tar_gz"],
    ["${P//\\//-} ${S#a\\*} ${S//\\?/q}", "-a-b-c.tar.gz b?c a*bqc"],
    ["${N:-${X:-q}} ${N:-'$X'} ${N:-\"$X\"}", "x y $X x y"],
    ['\'$P\' "$X" \\$X "\\$X \\n"', "$P x y $X $X \\n"],
    ["$ $$ $1x $@", "$  x "],
  ];
  for (const [word, text] of cases) assert.equal(expand(word, env, lex).text, text, word);
});

test("words are split after expansion, and lose what stands before a default", () => {
  assert.deepEqual(expand("$X \"$X\" a'b c'", env, lex).words, ["x", "y", "x y", "ab c"]);
  assert.deepEqual(expand("1${N:-2}", env, lex).words, ["2"]);
});

test("mistakes", () => {
  const cases: [string, string][] = [
    ["${A", "unsupported modifier (\ufffd) in substitution"],
    ["${", "syntax error: missing '}'"],
    ["${}", "syntax error: bad substitution"],
    ["${A:-b", "syntax error: missing '}'"],
    ["${A:=b}", "unsupported modifier (:=) in substitution"],
    ["${A:#b}", "unsupported modifier (:#) in substitution"],
    ["${A/b}", "syntax error: missing '/' in ${}"],
    ["${A?}", "A: is not allowed to be unset"],
    ["${E:?}", "E: is not allowed to be empty"],
    ["${A:?why not}", "A: why not"],
    ["'a", "unexpected end of statement while looking for matching single-quote"],
    ["${P#\\x}", "invalid pattern (\\x) in substitution: invalid escape '\\x'"],
  ];
  for (const [word, text] of cases) {
    const message = tryExpand(word, env, lex).problem?.message;
    assert.ok(message?.endsWith(`: ${text}`), `${word}: ${message}`);
  }
});
