const NUMBERS: Readonly<Record<string, number>> = {
  ABRT: 6,
  ALRM: 14,
  BUS: 7,
  CHLD: 17,
  CLD: 17,
  CONT: 18,
  FPE: 8,
  HUP: 1,
  ILL: 4,
  INT: 2,
  IO: 29,
  IOT: 6,
  KILL: 9,
  PIPE: 13,
  POLL: 29,
  PROF: 27,
  PWR: 30,
  QUIT: 3,
  SEGV: 11,
  STKFLT: 16,
  STOP: 19,
  SYS: 31,
  TERM: 15,
  TRAP: 5,
  TSTP: 20,
  TTIN: 21,
  TTOU: 22,
  URG: 23,
  USR1: 10,
  USR2: 12,
  VTALRM: 26,
  WINCH: 28,
  XCPU: 24,
  XFSZ: 25,
  RTMIN: 34,
  RTMAX: 64,
};

const FROM_MIN = /^RTMIN\+([1-9]|1[0-5])$/;
const FROM_MAX = /^RTMAX-([1-9]|1[0-4])$/;

/** Linux's number of a signal by its name in moby's `signal` package: no `SIG` before it; undefined for others. */
export function signalNumber(name: string): number | undefined {
  if (Object.hasOwn(NUMBERS, name)) return NUMBERS[name];
  const fromMin = FROM_MIN.exec(name)?.[1];
  if (fromMin !== undefined) return 34 + Number(fromMin);
  const fromMax = FROM_MAX.exec(name)?.[1];
  return fromMax === undefined ? undefined : 64 - Number(fromMax);
}
