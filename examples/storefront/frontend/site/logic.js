// What can be said without a page: tested with `node --test` while the image is built.

/** Cents of what a person typed as a price («49», «49.5», «49,90 €»), or null when it is none. */
export function cents(text) {
  const match = /^(\d{1,7})(?:[.,](\d{1,2}))?$/.exec(text.replace(/[\s€]/g, ""));
  if (!match) return null;
  const value = Number(match[1]) * 100 + Number((match[2] ?? "").padEnd(2, "0"));
  return value <= 100_000_000 ? value : null;
}

/** A price for people. */
export function price(value) {
  return new Intl.NumberFormat("en-IE", { style: "currency", currency: "EUR" }).format(value / 100);
}

/** The word beside a listing, "" for none or one this page does not know. Listings have badges while a flag is on. */
export function badge(name) {
  return new Map([["new", "New"], ["bargain", "Bargain"]]).get(name) ?? "";
}

/** How long ago, for people; both in milliseconds. */
export function ago(then, now) {
  const seconds = Math.max(0, Math.round((now - then) / 1000));
  if (seconds < 60) return "just now";
  for (const [size, name] of [[86400, "day"], [3600, "hour"], [60, "minute"]]) {
    const count = Math.floor(seconds / size);
    if (count >= 1) return `${count} ${name}${count === 1 ? "" : "s"} ago`;
  }
}

/** Milliseconds to wait before the next try: doubles up to 15 s, with jitter so that all pages do not knock at once. */
export function backoff(tries, chance) {
  const most = Math.min(15_000, 500 * 2 ** tries);
  return Math.round(most / 2 + (most / 2) * chance);
}

/** Listings of two lists, each once, newest first. */
export function merge(known, found) {
  const all = new Map([...known, ...found].map((listing) => [listing.id, listing]));
  return [...all.values()].sort((a, b) => Date.parse(b.created_at) - Date.parse(a.created_at) || (a.id < b.id ? 1 : -1));
}
