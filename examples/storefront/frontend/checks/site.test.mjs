// The pages obey their own content security policy, and name nothing that is not there.
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

const site = new URL("../site/", import.meta.url);
const read = (name) => readFileSync(new URL(name, site), "utf8");
const pages = readdirSync(site).filter((name) => name.endsWith(".html"));

for (const page of pages) {
  test(`${page}: no inline script, style or handler, no other origin`, () => {
    const html = read(page);
    assert.doesNotMatch(html, /<style|\sstyle=|\son[a-z]+=/i);
    for (const [, attributes, body] of html.matchAll(/<script([^>]*)>([^]*?)<\/script>/gi)) {
      assert.match(attributes, /\ssrc=/);
      assert.equal(body.trim(), "");
    }
    assert.doesNotMatch(html, /(?:src|href)="(?:https?:)?\/\//i);
  });

  test(`${page}: everything it names is there`, () => {
    for (const [, path] of read(page).matchAll(/(?:src|href)="\/([^"]+)"/g)) assert.ok(existsSync(new URL(path, site)), path);
  });
}

test("every element the script looks for is on the page", () => {
  const html = read("index.html");
  for (const [, id] of read("app.js").matchAll(/find\("([^"]+)"\)/g)) assert.match(html, new RegExp(`id="${id}"`), id);
});

test("the script writes text, never markup", () => {
  assert.doesNotMatch(read("app.js"), /innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(/);
});
