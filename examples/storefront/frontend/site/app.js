import { ago, backoff, badge, cents, merge, price } from "./logic.js";

const PAGE = 50;
const REFRESH = 15_000;
const find = (id) => document.getElementById(id);
const form = find("form");
let listings = [];
let loaded = false;

/** JSON of an answer. Throws an Error a person can read. */
async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { signal: AbortSignal.timeout(20_000), ...options });
  } catch (error) {
    throw new Error(error.name === "TimeoutError" ? "The shop did not answer in time." : "The shop cannot be reached.");
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    const error = new Error(body.error ? `${body.error[0].toUpperCase()}${body.error.slice(1)}.` : `The shop answered ${answer.status}.`);
    error.fields = body.fields ?? {};
    throw error;
  }
  return body;
}

function card(listing, isNew) {
  const item = find("card").content.firstElementChild.cloneNode(true);
  const picture = item.querySelector(".picture");
  const initial = () => {
    picture.dataset.tone = [...listing.id].reduce((sum, letter) => sum + letter.charCodeAt(0), 0) % 4;
    picture.textContent = [...listing.title][0]?.toUpperCase() ?? "";
  };
  if (listing.photo_url) {
    const image = new Image();
    image.alt = listing.title;
    image.loading = "lazy";
    image.onerror = initial;
    image.src = listing.photo_url;
    picture.append(image);
  } else initial();
  item.classList.toggle("new", isNew);
  const word = item.querySelector(".badge");
  word.textContent = badge(listing.badge);
  word.hidden = !word.textContent;
  item.querySelector("h3").textContent = listing.title;
  item.querySelector(".description").textContent = listing.description;
  item.querySelector(".price").textContent = price(listing.price_cents);
  const time = item.querySelector("time");
  time.dateTime = listing.created_at;
  time.textContent = ago(Date.parse(listing.created_at), Date.now());
  return item;
}

function show(found) {
  const before = new Set(listings.map((listing) => listing.id));
  const list = find("listings");
  const merged = merge(listings, found);
  const badges = (all) => all.map((listing) => listing.badge ?? "").join();
  const changed = merged.length !== listings.length || !loaded || badges(merged) !== badges(listings);
  listings = merged;
  list.setAttribute("aria-busy", "false");
  if (changed) list.replaceChildren(...listings.map((listing) => card(listing, loaded && !before.has(listing.id))));
  else for (const time of list.querySelectorAll("time")) time.textContent = ago(Date.parse(time.dateTime), Date.now());
  loaded = true;
  find("empty").hidden = listings.length > 0;
  find("count").textContent = listings.length === 1 ? "1 listing" : `${listings.length} listings`;
}

function notice(text) {
  find("notice").textContent = text;
  find("notice").hidden = !text;
}

async function load(older = false) {
  const last = listings.at(-1);
  try {
    const body = await ask(`/api/listings?limit=${PAGE}${older && last ? `&before=${last.id}` : ""}`);
    if (older || !loaded) find("more").hidden = body.listings.length < PAGE;
    show(body.listings);
    notice(body.degraded ? "We are having trouble with our database. You see what was there a moment ago; adding listings may not work yet." : "");
  } catch (error) {
    notice(`${error.message} Trying again.`);
  }
}

function versions() {
  ask("/version.json").then((body) => { find("frontend-version").textContent = body.version; }, () => {});
  ask("/api/version").then((body) => {
    find("api-version").textContent = body.release ? `${body.version} (release ${body.release})` : body.version;
    find("instance").textContent = body.instance;
    find("chip").textContent = body.version;
    find("chip").hidden = false;
  }, () => {});
}

function live(tries = 0) {
  const state = (name, text) => { find("live").dataset.state = name; find("live-text").textContent = text; };
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/live`);
  let opened = false;
  socket.onmessage = (event) => {
    const message = JSON.parse(event.data);
    if (message.type === "hello") {
      opened = true;
      state("open", "live");
      load();
      versions();
    }
    if (message.type === "listing") show([message.listing]);
  };
  socket.onclose = () => {
    // A deploy closes the line on purpose (1012): come back soon, each page at a moment of its own.
    const next = opened ? 0 : tries + 1;
    state("connecting", "reconnecting");
    setTimeout(live, backoff(next, Math.random()), next);
  };
}

form.elements.photo.addEventListener("change", () => {
  const [file] = form.elements.photo.files;
  const preview = find("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.hidden = !file;
  find("photo-hint").hidden = Boolean(file);
  if (file) preview.src = URL.createObjectURL(file);
  else preview.removeAttribute("src");
});

let key = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { title, price: amount, description, photo } = form.elements;
  const value = cents(amount.value);
  const wrong = [[title, !title.value.trim(), "Give it a title."], [amount, value === null, "Give a price like 49 or 49.90."]];
  for (const [field, bad] of wrong) field.setAttribute("aria-invalid", String(bad));
  find("problem").textContent = wrong.filter(([, bad]) => bad).map(([, , text]) => text).join(" ");
  const first = wrong.find(([, bad]) => bad);
  if (first) return first[0].focus();
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const draft = { title: title.value, description: description.value, price_cents: value };
    const [file] = photo.files;
    if (file) draft.photo = (await ask("/api/photos", { method: "POST", body: file, headers: { "Content-Type": file.type } })).photo;
    // The key makes pressing the button again after a lost answer harmless.
    const listing = await ask("/api/listings", {
      method: "POST",
      body: JSON.stringify(draft),
      headers: { "Content-Type": "application/json", "Idempotency-Key": key },
    });
    key = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;
    form.reset();
    photo.dispatchEvent(new Event("change"));
    show([listing]);
  } catch (error) {
    find("problem").textContent = error.message;
  } finally {
    button.disabled = false;
  }
});

find("more").addEventListener("click", () => load(true));
setInterval(() => { if (!document.hidden) load(); }, REFRESH);
load();
versions();
live();
