export { cleanPath, trimSpace } from "./clean.ts";
export { type IgnoreLine, readIgnoreFile, readIgnoreLines } from "./ignore-file.ts";
export { matchPath } from "./path-match.ts";
export { type MatchInfo, matchesOrParentMatches, type Pattern, PatternMatcher } from "./pattern-matcher.ts";
