import assert from "node:assert/strict";
import { test } from "node:test";

import { ago, backoff, badge, cents, merge, price } from "../site/logic.js";

test("prices people type", () => {
  for (const [text, value] of [["49", 4900], ["49.5", 4950], ["49,90 €", 4990], [" 0 ", 0], ["1000000", 100_000_000]]) {
    assert.equal(cents(text), value, text);
  }
  for (const text of ["", "x", "-1", "1.234", "1,000.00", "1e3", "1000000.01"]) assert.equal(cents(text), null, text);
});

test("prices people read", () => assert.equal(price(123456), "€1,234.56"));

test("badges are words, and what is unknown is none", () => {
  assert.deepEqual(["new", "bargain", null, undefined, "constructor", "later"].map(badge), ["New", "Bargain", "", "", "", ""]);
});

test("how long ago", () => {
  for (const [seconds, text] of [[-5, "just now"], [59, "just now"], [60, "1 minute ago"], [7200, "2 hours ago"], [86400, "1 day ago"]]) {
    assert.equal(ago(0, seconds * 1000), text);
  }
});

test("reconnecting waits longer, never too long, never all at once", () => {
  assert.equal(backoff(0, 0), 250);
  assert.equal(backoff(0, 1), 500);
  assert.ok(backoff(3, 0.5) > backoff(2, 0.5));
  assert.equal(backoff(100, 1), 15_000);
});

test("listings are merged once each, newest first", () => {
  const listing = (id, second) => ({ id, created_at: `2026-01-01T00:00:0${second}.123456+00:00` });
  const merged = merge([listing("a", 1), listing("b", 3)], [listing("a", 1), listing("c", 2)]);
  assert.deepEqual(merged.map(({ id }) => id), ["b", "c", "a"]);
});
