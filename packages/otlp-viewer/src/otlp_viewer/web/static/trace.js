// A trace's page: keyboard and mouse navigation, search, errors, zoom, and span details without page loads.

import { count, plural } from "./format.js";
import { drawScale, Overview } from "./map.js";
import { copy, fetchNews, isLive, localTimes, say, showMemory } from "./page.js";
import { Tree } from "./tree.js";

const get = (id) => document.getElementById(id);
const list = get("tree"), address = new URL(location.href), base = address.pathname.replace(/\/$/, "");
const tree = new Tree(list, keep);
const overview = new Overview(get("map"), (part) => zoom(part));

// The URL contains the state: span, collapsed rows, search, zoom.

let named = address.searchParams.has("span");

function keep() {
  const closed = tree.open.filter((row) => tree.closed[row]).map((row) => tree.data.row[row].toString(36));
  const state = {
    span: named && tree.chosen >= 0 ? tree.data.key[tree.chosen] : null,
    closed: closed.length && closed.length <= 1000 ? closed.join(".") : null,
    search: get("search").value || null,
    zoom: tree.zoom[0] > 0 || tree.zoom[1] < tree.data.length ? tree.zoom.map((at) => Math.round(at)).join("-") : null,
  };
  for (const [name, value] of Object.entries(state)) if (value === null) address.searchParams.delete(name); else address.searchParams.set(name, value);
  history.replaceState(null, "", address);
}

// Span details: cached, and the last click wins.

const FAILED = "The details of this span could not be loaded.";
const details = new Map();
let version = "", seen = "";  // the store's version: of the latest response, and of the latest page

// Drop cached details, and fetch the page again, when the store has changed.
function compare(answer) {
  const current = answer.headers.get("ETag") || "";
  if (version && version !== current) { details.clear(); seen = ""; }
  version = current;
}

function load(key) {
  if (!details.has(key)) {
    const text = fetch(`${base}/spans/${key}`, { headers: { Accept: "text/html" } }).then((answer) => {
      if (!answer.ok) throw new Error(answer.status === 404 ? "This span is no longer in memory." : FAILED);
      compare(answer);
      details.set(key, text);
      return answer.text();
    }, () => { throw new Error(FAILED); });
    details.set(key, text);
    text.catch(() => details.delete(key));
    if (details.size > 200) details.delete(details.keys().next().value);
  }
  return details.get(key);
}

// Prefetch the hovered or focused span, because a click or Enter is likely to follow.
let resting = 0;

function soon(row) {
  clearTimeout(resting);
  if (row !== undefined) resting = setTimeout(() => load(tree.data.key[row]).catch(() => {}), 60);
}

async function choose(row) {
  const key = tree.data.key[row];
  const isLast = () => tree.data.key[tree.chosen] === key;
  tree.chosen = tree.cursor = row;
  named = true;
  // Update the row and its details in one frame if the details arrive soon. A frame for the row only would delay them.
  const loading = load(key).then(parse, failure), pause = new Promise((done) => { setTimeout(done, 50); });
  const loaded = await Promise.race([loading, pause]);
  if (isLast()) {
    tree.moveTo(tree.cursor);
    if (!loaded) get("span").setAttribute("aria-busy", "true");
  }
  const content = await loading;
  if (!isLast()) return;
  fill(content);
  keep();
}

// Prepare everything before insertion, so that the page is laid out once.
function parse(text) {
  const { body } = new DOMParser().parseFromString(text, "text/html");
  localTimes(body);
  unlinkLost(body);
  return body;
}

function failure(error) {
  seen = "";  // the next look at the page brings the details, if it succeeds
  const body = document.createElement("div");
  body.append(alertOf(error.message));
  return body;
}

function alertOf(text) {
  const element = document.createElement("p");
  element.className = "message bad";
  element.setAttribute("role", "alert");
  element.textContent = text;
  return element;
}

function fill(content) {
  const panel = get("span");
  panel.removeAttribute("aria-busy");
  panel.scrollTop = 0;
  panel.replaceChildren(...document.adoptNode(content).childNodes);
  get("message").textContent = `Details of ${tree.data.names[tree.data.name[tree.chosen]]}`;
  if (matchMedia("(max-width: 900px)").matches) panel.scrollIntoView({ block: "start" });
  markFound()?.scrollIntoView({ block: "nearest" });
}

// Remove the link of a parent that has not been received.
function unlinkLost(root) {
  for (const link of root.querySelectorAll(".mono a")) if (!tree.row.has(link.textContent)) link.replaceWith(`${link.textContent}, not received`);
}

// Zoom.

function zoom([from, to]) {
  tree.zoom = [Math.max(0, from), Math.min(tree.data.length, to)];
  if (!(tree.zoom[1] > tree.zoom[0])) tree.zoom = [0, tree.data.length];
  get("zoom-out").hidden = tree.zoom[0] === 0 && tree.zoom[1] === tree.data.length;
  drawScale(get("scale"), tree.zoom, tree.data.length);
  overview.draw(tree, tree.zoom);
  tree.redraw();
  keep();
}

function zoomTo(row) {
  const start = tree.data.start[row], took = Math.max(tree.data.took[row], tree.data.length / 1e6), margin = took * 0.05;
  zoom([start - margin, start + took + margin]);
}

// Search names, services and URLs at once, then attributes, events and messages on the server.

let hits = [], searching = 0;

const searched = () => get("search").value.trim();
// Lower-casing can change the length of a text, so positions come from the original.
const pattern = (text) => new RegExp(text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"), "iu");

// Mark matches in the span's details and in logs, even collapsed ones. Return the first mark in the details.
function markFound() {
  const text = searched(), wanted = pattern(text), found = [], logs = new Set();
  const inDetails = (element) => !element.closest(".log, .acts, .only, dt, h3, #span-json");
  const inLog = (element) => element.closest(".severity, .body, .from, dd, pre") && !element.closest(".only");
  for (const root of document.querySelectorAll("#span, #logs .logs")) {
    for (const mark of root.querySelectorAll("mark")) mark.replaceWith(mark.textContent);
    root.normalize();
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    while (text && walker.nextNode()) {
      const node = walker.currentNode, match = wanted.exec(node.data);
      if (!match) continue;
      const element = node.parentElement, log = element.closest(".log");
      if (log ? inLog(element) : inDetails(element)) {
        if (log) logs.add(log);
        if (!element.closest("summary")) found.push([node, match, log]);
      }
    }
    for (const log of root.querySelectorAll(".log")) log.classList.toggle("hit", logs.has(log));
  }
  const several = document.querySelectorAll("#logs .log.hit").length, listed = document.querySelectorAll("#logs .log").length;
  const more = Boolean(document.querySelector("#logs[data-more]"));
  get("log-hit").hidden = !text || !(several || more);
  get("log-hit").disabled = !several;
  get("log-hit").textContent = more ? `${count(several)} of the newest ${count(listed)} logs` : plural(several, "log");
  const marks = found.map(([node, match, log]) => {
    const part = document.createRange(), mark = document.createElement("mark");
    part.setStart(node, match.index);
    part.setEnd(node, match.index + match[0].length);
    part.surroundContents(mark);
    return log ? null : mark;
  });
  return marks.find(Boolean);
}

// The next log with a match, after the focused one.
function stepLog() {
  const rows = [...document.querySelectorAll("#logs .log.hit summary")];
  const next = rows[(rows.indexOf(document.activeElement) + 1) % rows.length];
  next.focus();
  next.scrollIntoView({ block: "center" });
}

async function search() {
  const text = searched(), mine = ++searching, { data } = tree;
  const found = new Set();
  if (text) {
    const wanted = pattern(text), has = (texts) => texts.map((one) => wanted.test(one));
    const [names, texts, services] = [has(data.names), has(data.texts), has(data.services.map(([name]) => name))];
    data.key.forEach((key, row) => { if (names[data.name[row]] || texts[data.text[row]] || services[data.service[row]] || key.startsWith(text.toLowerCase())) found.add(row); });
  }
  show(found, Boolean(text));
  markFound();
  if (!text) return;
  const answer = await fetch(`${base}/find?${new URLSearchParams({ text })}`);
  if (!answer.ok || mine !== searching) return;
  for (const number of await answer.json()) if (tree.stored.has(number)) found.add(tree.stored.get(number));
  if (mine === searching) show(found);

  function show(all, more = false) {
    hits = [...all].sort((a, b) => a - b);
    tree.hits = all;
    tree.redraw();
    get("hit-steps").hidden = !hits.length;
    get("hits").textContent = !text ? "" : more ? "…" : plural(hits.length, "match", "matches");
    keep();
  }
}

function stepHit(by) {
  const at = tree.next(hits, by);
  if (at === undefined) return;
  get("hits").textContent = `${count(at + 1)} of ${count(hits.length)}`;
  choose(hits[at]);
}

function stepError(by) {
  const rows = tree.data.error, at = tree.next(rows, by);
  if (at === undefined) return;
  get("errors-at").textContent = `error ${count(at + 1)} of ${count(rows.length)}`;
  choose(rows[at]);
}

// Keys.

const inTree = {
  ArrowDown: () => tree.step(1), ArrowUp: () => tree.step(-1),
  PageDown: () => tree.step(Math.floor(list.clientHeight / tree.height)), PageUp: () => tree.step(-Math.floor(list.clientHeight / tree.height)),
  Home: () => tree.step(-Infinity), End: () => tree.step(Infinity),
  Enter: () => choose(tree.cursor), " ": () => choose(tree.cursor),
  ArrowRight: () => { if (tree.closed[tree.cursor]) tree.toggle(tree.cursor, false); else if (tree.hasChildren(tree.cursor)) tree.moveTo(tree.cursor + 1); },
  ArrowLeft: () => {
    if (tree.hasChildren(tree.cursor) && !tree.closed[tree.cursor]) tree.toggle(tree.cursor, true);
    else if (tree.parent[tree.cursor] >= 0) tree.moveTo(tree.parent[tree.cursor]);
  },
};
const anywhere = {
  j: () => { list.focus(); tree.step(1); }, k: () => { list.focus(); tree.step(-1); },
  e: () => stepError(1), E: () => stepError(-1), n: () => stepHit(1), N: () => stepHit(-1),
  "/": () => get("search").focus(), z: () => zoomTo(tree.cursor), 0: () => zoom([0, tree.data.length]),
  c: () => collapse(true), x: () => collapse(false), y: () => copyId(),
  "?": () => get("help").showModal(),
};
const copyId = async () => say(await copy(tree.data.key[tree.cursor].split(".")[0]) ? "Span ID copied" : "Copy failed");
const collapse = (close) => tree.toggleAll((row) => !close || tree.data.depth[row] > 0 || tree.data.key.length < 2, close);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || get("help").open) return;
  if (event.target.closest("input, select, textarea")) {
    if (event.target === get("search") && (event.key === "Enter" || event.key === "Escape")) {
      event.preventDefault();
      if (event.key === "Enter") stepHit(event.shiftKey ? -1 : 1);
      else { get("search").value = ""; search(); }
      list.focus();
    }
    return;
  }
  const act = (event.target === list && inTree[event.key]) || anywhere[event.key];
  if (!act) return;
  event.preventDefault();
  act();
  if (document.activeElement === list) soon(tree.cursor);
});

list.addEventListener("pointerover", (event) => { soon(event.target.closest(".row")?.dataset.row); });
list.addEventListener("pointerleave", () => soon());
list.addEventListener("pointerdown", (event) => {
  const element = event.target.closest(".row");
  if (element && !event.target.closest(".twist")) load(tree.data.key[element.dataset.row]).catch(() => {});  // before the click is done
});
list.addEventListener("click", (event) => {
  const element = event.target.closest(".row");
  if (!element) return;
  const row = Number(element.dataset.row);
  if (event.target.closest(".twist") && tree.hasChildren(row)) { tree.cursor = row; tree.toggle(row); } else choose(row);
});
// A link to a span of this trace, such as the parent, loads no new page.
document.addEventListener("click", (event) => {
  const link = event.target.closest("#span a[href*='span=']"), to = link && new URL(link.href);
  const row = to && to.pathname === base ? tree.row.get(to.searchParams.get("span")) : undefined;
  if (row === undefined || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  choose(row);
});
list.addEventListener("dblclick", (event) => { const element = event.target.closest(".row"); if (element) zoomTo(Number(element.dataset.row)); });
list.addEventListener("focus", () => list.setAttribute("aria-activedescendant", `row-${tree.cursor}`));
get("search").addEventListener("input", () => search());
for (const [id, act] of Object.entries({
  "hit-after": () => stepHit(1), "hit-before": () => stepHit(-1), "log-hit": stepLog, "error-after": () => stepError(1), "error-before": () => stepError(-1),
  collapse: () => collapse(true), expand: () => collapse(false), "zoom-out": () => zoom([0, tree.data.length]), keys: () => get("help").showModal(),
})) get(id).addEventListener("click", act);
document.addEventListener("click", (event) => {
  const button = event.target.closest(".legend button[data-service]");
  if (!button) return;
  const number = Number(button.dataset.service);
  const of = (row) => tree.data.service[row] === number;
  const open = tree.data.key.some((_, row) => of(row) && tree.hasChildren(row) && !tree.closed[row]);
  tree.toggleAll(of, open);
  button.setAttribute("aria-pressed", String(open));
});

// Live updates. Late spans and logs can belong to any trace.

let outline = get("outline").textContent, latest = null, latestKey = "";

async function look() {
  const started = Date.now();
  if (isLive() && !document.hidden) {
    const url = new URL(location.href), key = tree.data.key[tree.chosen];
    if (key) url.searchParams.set("span", key);
    try {
      const answer = await fetchNews(url, seen);
      get("live").classList.toggle("lost", !answer.ok && answer.status !== 304 && answer.status !== 404);
      if (answer.status === 200 || answer.status === 404) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        showMemory(page);
        if (answer.status === 404) { leave(); return; }
        compare(answer);
        seen = version;
        latest = page;
        latestKey = key;
      }
      if (latest) renewAll();
    } catch {
      get("live").classList.add("lost");
    }
  }
  setTimeout(look, Math.max(2000, 10 * (Date.now() - started)));
}

function leave() {
  get("live").hidden = true;
  const note = alertOf("This trace is no longer in memory.");
  note.id = "gone";
  get("main").prepend(note);
}

function renewAll() {
  const text = latest.getElementById("outline").textContent, changed = text !== outline;
  if (changed) {
    outline = text;
    const whole = tree.zoom[0] === 0 && tree.zoom[1] === tree.data.length;
    document.title = latest.title;
    if (whole) tree.zoom = null;
    tree.take(JSON.parse(text));
    zoom(tree.zoom);
  }
  const panel = latest.getElementById("span");
  localTimes(latest);
  localTimes(document);
  if (panel) unlinkLost(panel);
  // Only the details of the span that is still chosen.
  if (panel && (latestKey !== tree.data.key[tree.chosen] || get("span").ariaBusy || panel.dataset.key !== latestKey)) panel.remove();
  const renewed = ["about", "span", "below"].filter(renew).length;
  if (changed || renewed) begin();
  if (searched()) if (changed) search(); else if (renewed) markFound();
  if (!["about", "span", "below"].some((id) => latest.getElementById(id))) latest = null;
}

// Replace a part of the page with its latest version. While the user selects text in it, the part waits for the next look.
function renew(id) {
  const part = get(id), fresh = latest.getElementById(id), selection = getSelection();
  if (!fresh || (!selection.isCollapsed && selection.containsNode(part, true))) return false;
  fresh.remove();
  if (fresh.textContent.trim() === part.textContent.trim()) return false;
  const open = new Map([...part.querySelectorAll("summary")].map((one) => [one.textContent, one.parentElement.open]));
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  part.replaceChildren(...document.adoptNode(fresh).childNodes);
  for (const one of part.querySelectorAll("summary")) if (open.has(one.textContent)) one.parentElement.open = open.get(one.textContent);
  if (focused) [...part.querySelectorAll(focused.localName)].find((one) => one.textContent === focused.textContent)?.focus({ preventScroll: true });
  return true;
}

function begin() {
  for (const button of document.querySelectorAll(".legend button")) button.disabled = false;
  get("error-steps").hidden = !tree.data.error.length;
  get("errors-at").textContent = plural(tree.data.error.length, "error");
  localTimes(document);
  unlinkLost(get("span"));
}

const state = Object.fromEntries(address.searchParams);
address.hash = "";
get("rows").hidden = get("row-pages").hidden = true;
for (const id of ["toolbar", "tree", "map"]) get(id).hidden = false;
tree.take(JSON.parse(outline));
for (const number of (state.closed || "").split(".")) {
  const row = tree.stored.get(parseInt(number, 36));
  if (row !== undefined) tree.closed[row] = 1;
}
tree.arrange();
get("search").value = state.search || "";
const chosen = tree.row.get(state.span);
if (chosen !== undefined) {
  let at = chosen;
  while (!tree.place.has(at)) at = tree.parent[at];
  tree.chosen = chosen;
  tree.moveTo(at);
  list.scrollTop = Math.max(0, tree.place.get(at) * tree.height - list.clientHeight / 3);
} else tree.chosen = 0;
const part = (state.zoom || "").split("-").map(Number);
zoom(part.length === 2 && part.every((at) => Number.isFinite(at)) ? part : [0, tree.data.length]);
if (state.search) search();
begin();
setTimeout(look, 2000);
