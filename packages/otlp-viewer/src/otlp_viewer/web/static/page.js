// Features of every page: local times, live updates, and copying. Nothing here creates HTML from telemetry.

import { ago, clock, day, isToday, pad, precise, zone } from "./format.js";

// Times: replace the server's UTC with the user's time zone.

export function localTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const at = new Date(element.dateTime);
    if (isNaN(at)) continue;
    const full = element.dataset.form === "full";
    element.textContent = (full || !isToday(at) ? `${day(at)} ` : "") + precise(at) + (full ? ` ${zone(at)}` : "");
    element.title = `${day(at)} ${precise(at)} ${zone(at)}`;
  }
  for (const element of root.querySelectorAll("text[data-time]")) {
    const at = new Date(Number(element.dataset.time) * 1000), step = Number(element.dataset.step);
    if (step >= 86400) element.textContent = day(at);
    else element.textContent = ("days" in element.dataset ? `${pad(at.getMonth() + 1)}-${pad(at.getDate())} ` : "") + clock(at, step);
  }
  for (const element of root.querySelectorAll("[data-zone]")) element.textContent = `, ${zone()}`;
  // Times on other days include the date and need more space.
  for (const list of root.querySelectorAll(".logs, .traces")) {
    list.classList.toggle("dated", [...list.querySelectorAll("time")].some((time) => time.textContent.length > 12));
  }
  relativeTimes(root);
}

function relativeTimes(root) {
  for (const element of root.querySelectorAll(".ago[data-at]")) element.textContent = ago(Date.now() - Number(element.dataset.at));
}

// Copying.

// Return whether the text was copied.
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { /* no permission, or not a secure context: http with a name other than localhost */ }
  const field = document.createElement("textarea"), focused = document.activeElement;
  field.className = "hidden";
  field.value = text;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  focused?.focus({ preventScroll: true });
  return copied;
}

// Show a text for a short time.
let saying = 0;

export function say(text) {
  const message = document.getElementById("message");
  message.textContent = text;
  message.className = "said";
  clearTimeout(saying);
  saying = setTimeout(() => { message.className = "hidden"; }, 2000);
}

async function textOf({ copyUrl, copyFrom, copy: text }) {
  if (!copyUrl) return copyFrom ? document.getElementById(copyFrom).textContent : text;
  const answer = await fetch(copyUrl);
  if (!answer.ok) throw new Error(answer.statusText);
  return answer.text();
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  const result = await textOf(button.dataset).then(copy).catch(() => false) ? "Copied" : "Copy failed";
  document.getElementById("message").textContent = result;
  if (button.dataset.done) return;
  const label = button.firstChild.textContent;
  button.dataset.done = "1";
  button.firstChild.textContent = result;
  setTimeout(() => { button.firstChild.textContent = label; delete button.dataset.done; }, 1200);
});

// Suggestions for a field, fetched on focus.

document.addEventListener("focusin", async (event) => {
  const list = event.target.list;
  if (!list || !list.dataset.from || list.children.length) return;
  const answer = await fetch(list.dataset.from);
  if (answer.ok) list.replaceChildren(...(await answer.json()).map((value) => new Option("", value)));
});

// Live updates: poll every two seconds. Apply an update at once if the user does not lose their place;
// otherwise, show a button.

const live = document.getElementById("live");
const main = document.getElementById("main");
const kind = main.dataset.live;
let seen = "", waiting = null;

export const isLive = () => kind !== undefined && live.getAttribute("aria-pressed") === "true";

function reading() {
  const active = document.activeElement, results = document.getElementById("results");
  return window.scrollY > 80 || window.getSelection().toString() !== "" || document.querySelector("dialog[open]") ||
    (active && active.closest("form, .heatmap, .lines, .scroll, #results") && active !== document.body) ||
    (results && results.matches(":hover") && Date.now() - moved < 3000) ||
    (results && results.querySelector("details[open]"));
}

let moved = 0;
document.addEventListener("pointermove", () => { moved = Date.now(); }, { passive: true });

// Fetch the page again; a 304 response means that it has not changed.
export const fetchNews = (url, seen) => fetch(url, { headers: { "X-Live": "1", "If-None-Match": seen, Accept: "text/html" } });

export function showMemory(page) {
  document.getElementById("memory").replaceChildren(...document.adoptNode(page.getElementById("memory")).childNodes);
}

async function look() {
  if (isLive() && !document.hidden) {
    try {
      const answer = await fetchNews(location.href, seen);
      if (answer.status === 200) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const first = seen === "";
        seen = answer.headers.get("ETag") || "";
        if (isLive() && (!first || page.getElementById("memory").textContent !== document.getElementById("memory").textContent)) offer(page);
      }
      live.classList.remove("lost");
    } catch {
      live.classList.add("lost");
    }
  }
  setTimeout(look, 2000);
}

function offer(page) {
  showMemory(page);
  if (!reading()) { renew(page); return; }
  waiting = page;
  let button = document.getElementById("news");
  if (!button) {
    button = document.createElement("button");
    button.type = "button";
    button.id = "news";
    button.textContent = "Show new data";
    button.addEventListener("click", () => { if (waiting) renew(waiting); window.scrollTo({ top: 0 }); });
    main.prepend(button);
  }
}

function renew(page) {
  waiting = null;
  const button = document.getElementById("news");
  if (button) button.remove();
  const results = document.getElementById("results"), fresh = page.getElementById("results");
  if (results && fresh) results.replaceChildren(...document.adoptNode(fresh).childNodes);
  else main.replaceChildren(...document.adoptNode(page.getElementById("main")).childNodes);
  localTimes(main);
  main.dispatchEvent(new CustomEvent("renewed"));
}

localTimes(document);
setInterval(() => { if (!document.hidden) relativeTimes(document); }, 5000);
if (kind !== undefined) {
  live.hidden = false;
  live.addEventListener("click", () => live.setAttribute("aria-pressed", String(!isLive())));
  if (kind === "") setTimeout(look, 1000);
}
// On a narrow screen, collapse the query to one line.
if (matchMedia("(max-width: 640px)").matches) document.querySelectorAll(".criteria").forEach((details) => { details.open = false; });
