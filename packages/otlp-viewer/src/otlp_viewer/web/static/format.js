// Formats values like format.py.

export const pad = (number, digits = 2) => String(number).padStart(digits, "0");

const three = (value) => {
  const size = Math.abs(value);
  if (size >= 99.95) return Math.round(value).toLocaleString("en-US");
  return size >= 9.995 ? value.toFixed(1) : value.toFixed(2);
};

export function duration(milliseconds) {
  const size = Math.abs(milliseconds);
  if (size === 0) return "0 ms";
  if (size < 0.0009995) return `${Number((milliseconds * 1e6).toPrecision(3))} ns`;
  if (size < 0.9995) return `${three(milliseconds * 1000)} µs`;
  if (size < 999.5) return `${three(milliseconds)} ms`;
  if (size < 59950) return `${three(milliseconds / 1000)} s`;
  const sign = milliseconds < 0 ? "-" : "", seconds = Math.round(size / 1000);
  if (seconds < 3600) return `${sign}${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  const minutes = Math.round(size / 60000);
  if (minutes < 1440) return `${sign}${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  const hours = Math.round(size / 3600000);
  return `${sign}${Math.floor(hours / 24).toLocaleString("en-US")} d ${hours % 24} h`;
}

export const count = (value) => Number.isInteger(value) ? value.toLocaleString("en-US") : String(Number(value.toPrecision(4)));
export const plural = (number, singular, many = `${singular}s`) => `${count(number)} ${number === 1 ? singular : many}`;
export const amount = (value, unit) => unit === "ms" ? duration(value) : Number(value.toPrecision(4)).toLocaleString("en-US");

export const day = (at) => `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
export const isToday = (at) => new Date().toDateString() === at.toDateString();

// An axis time, for ticks `step` seconds apart.
export function clock(at, step) {
  const text = `${pad(at.getHours())}:${pad(at.getMinutes())}`;
  if (step >= 60) return text;
  const seconds = `${text}:${pad(at.getSeconds())}`;
  return step >= 1 ? seconds : `${seconds}.${Math.floor(at.getMilliseconds() / 100)}`;
}

export const precise = (at) => `${clock(at, 1)}.${pad(at.getMilliseconds(), 3)}`;

export function zone(at = new Date()) {
  const offset = -at.getTimezoneOffset();
  if (offset === 0) return "UTC";
  const hours = Math.floor(Math.abs(offset) / 60), minutes = Math.abs(offset) % 60;
  return `UTC${offset < 0 ? "−" : "+"}${hours}${minutes ? ":" + pad(minutes) : ""}`;
}

export function ago(milliseconds) {
  const seconds = Math.round(milliseconds / 1000);
  if (seconds < 0) return "";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}
