/** Names of variables whose values nobody should read in a message. */
const SENSITIVE =
  /TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|(?:^|_)(?:AUTH|PWD|KEY)(?:_|$)/i;
/** Shorter values are words of any message, not secrets. */
const MIN_LENGTH = 4;
const MASK = "***";

/** Something that takes the values of sensitive variables out of texts. */
export function masking(
  variables: Iterable<readonly [name: string, value: string]>,
): (text: string) => string {
  const values = [...variables]
    .filter(([name, value]) => SENSITIVE.test(name) && value.length >= MIN_LENGTH)
    .map(([, value]) => value)
    .sort((a, b) => b.length - a.length);
  return (text) => values.reduce((out, value) => out.replaceAll(value, MASK), text);
}
