// Numbers for people.

const digits = new Intl.NumberFormat("en", { maximumSignificantDigits: 6 });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** A number in at most six digits, where it has no more before its point. */
export function number(value) {
  if (typeof value === "bigint") return whole.format(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e15)) return value.toExponential(4).replace("e+", "e");
  return size >= 100_000 ? whole.format(value) : digits.format(value);
}
