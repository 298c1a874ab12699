// What the pages do beyond links and forms: local times, news, the waterfall's keys, and the heatmap. All of it
// works on what the server made; nothing here makes HTML from what was sent.
"use strict";

const pad = (number, digits = 2) => String(number).padStart(digits, "0");

function localTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const at = new Date(element.dateTime);
    if (isNaN(at)) continue;
    const clock = `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}.${pad(at.getMilliseconds(), 3)}`;
    const day = `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
    const today = new Date().toDateString() === at.toDateString();
    element.textContent = element.dataset.form === "full" || !today ? `${day} ${clock}` : clock;
    element.title = `${element.dateTime} (UTC)`;
  }
  for (const element of root.querySelectorAll("text[data-time]")) {
    const at = new Date(Number(element.dataset.time) * 1000);
    const fraction = at.getMilliseconds() ? `.${Math.round(at.getMilliseconds() / 100)}` : "";
    element.textContent = `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}${fraction}`;
  }
}

// News: ask again every two seconds, and put what is new in the place of what is there.

const live = document.getElementById("live");
const main = document.getElementById("main");
let seen = "";

function busy() {
  const active = document.activeElement;
  return document.hidden || live.getAttribute("aria-pressed") !== "true" || dragging !== null ||
    (active && active.closest("form, .heatmap, .scroll, aside"));
}

async function look() {
  if (main.hasAttribute("data-live") && !busy()) {
    try {
      const answer = await fetch(location.href, { headers: { "X-Live": "1", "If-None-Match": seen, Accept: "text/html" } });
      if (answer.status === 200 && !busy()) {
        const first = seen === "";
        seen = answer.headers.get("ETag") || "";
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        if (!first || page.getElementById("kept").textContent !== document.getElementById("kept").textContent) renew(page);
      }
      live.classList.remove("lost");
    } catch {
      live.classList.add("lost");
    }
  }
  setTimeout(look, 2000);
}

function renew(page) {
  const focused = document.activeElement && document.activeElement.closest("#results a");
  const href = focused && focused.getAttribute("href");
  const results = document.getElementById("results"), fresh = page.getElementById("results");
  if (results && fresh) results.replaceWith(document.adoptNode(fresh));
  else main.replaceChildren(...document.adoptNode(page.getElementById("main")).childNodes);
  document.getElementById("kept").textContent = page.getElementById("kept").textContent;
  begin(main);
  if (href) for (const link of main.querySelectorAll("#results a")) if (link.getAttribute("href") === href) { link.focus(); break; }
}

// The waterfall: arrows go from span to span, and a span's details come without a new page.

async function choose(row) {
  const answer = await fetch(row.href, { headers: { Accept: "text/html" } });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.getElementById("span");
  if (!answer.ok || !fresh) { location.assign(row.href); return; }
  for (const other of document.querySelectorAll(".row.chosen")) { other.classList.remove("chosen"); other.removeAttribute("aria-current"); }
  row.classList.add("chosen");
  row.setAttribute("aria-current", "true");
  const panel = document.adoptNode(fresh);
  document.getElementById("span").replaceWith(panel);
  localTimes(panel);
  history.replaceState(null, "", row.href);
  if (matchMedia("(max-width: 900px)").matches) panel.scrollIntoView({ behavior: "smooth" });
}

function waterfall(list) {
  const rows = [...list.querySelectorAll(".row")];
  list.addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (!row || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    choose(row);
  });
  list.addEventListener("keydown", (event) => {
    const at = rows.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (at < 0 || to === undefined || !rows[to]) return;
    event.preventDefault();
    rows[to].focus();
  });
}

// The heatmap: a click or Enter opens a trace, a box asks what sets its spans apart.

let dragging = null;

function heatmap(svg) {
  const { query, column, unit } = svg.dataset;
  const [start, step, columns, height] = ["start", "step", "columns", "height"].map((name) => Number(svg.dataset[name]));
  const edges = JSON.parse(svg.dataset.edges);
  const rows = edges.length - 1;
  const counts = new Map();
  for (const cell of svg.querySelectorAll("rect[data-at]")) {
    const [x, y, count] = cell.dataset.at.split(",").map(Number);
    counts.set(`${x},${y}`, count);
  }
  const box = svg.querySelector(".box");
  const reading = svg.closest(".chart").querySelector(".reading");
  const hint = reading.textContent;
  let cursor = null, anchor = null;

  const limit = (value, most) => Math.max(0, Math.min(most, value));
  const place = (event) => {
    const around = svg.getBoundingClientRect();
    return [
      limit(Math.floor((event.clientX - around.left) / around.width * columns), columns - 1),
      limit(rows - 1 - Math.floor((event.clientY - around.top) / height * rows), rows - 1),
    ];
  };
  const bounds = (a, b) => [Math.min(a[0], b[0]), Math.max(a[0], b[0]) + 1, Math.min(a[1], b[1]), Math.max(a[1], b[1]) + 1];
  const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour12: false }) + (step < 1 ? "." + Math.round(seconds * 10) % 10 : "");
  const amount = (value) => {
    if (unit !== "ms") return Number(value.toPrecision(3)).toLocaleString("en");
    if (value < 1) return `${Number((value * 1000).toPrecision(3))} µs`;
    return value < 1000 ? `${Number(value.toPrecision(3))} ms` : `${Number((value / 1000).toPrecision(3))} s`;
  };
  const draw = (a, b) => {
    const [left, right, bottom, top] = bounds(a, b);
    box.setAttribute("x", `${left / columns * 100}%`);
    box.setAttribute("width", `${(right - left) / columns * 100}%`);
    box.setAttribute("y", height - top / rows * height);
    box.setAttribute("height", (top - bottom) / rows * height);
    box.removeAttribute("hidden");
    let inside = 0;
    for (let x = left; x < right; x++) for (let y = bottom; y < top; y++) inside += counts.get(`${x},${y}`) || 0;
    const many = right - left > 1 || top - bottom > 1;
    reading.textContent = `${clock(start + left * step)} to ${clock(start + right * step)}, ${amount(edges[bottom])} to ${amount(edges[top])}: ` +
      `${inside.toLocaleString("en")} span${inside === 1 ? "" : "s"}` + (!inside ? "" : many ? ". Enter, or let go, to see what sets them apart." : ". Click, or Enter, to open the slowest.");
    return inside;
  };
  const go = (a, b) => {
    const [left, right, bottom, top] = bounds(a, b);
    const inside = draw(a, b);
    if (!inside) return;
    const area = [start + left * step, start + right * step, edges[bottom], edges[top], column].join(",");
    const one = right - left === 1 && top - bottom === 1;
    location.assign(`${one ? "/query/slowest" : "/query"}?${new URLSearchParams({ query, box: area })}${one ? "" : "#comparison"}`);
  };

  svg.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    dragging = place(event);
    svg.setPointerCapture(event.pointerId);
    draw(dragging, dragging);
  });
  svg.addEventListener("pointermove", (event) => { draw(dragging || place(event), place(event)); });
  svg.addEventListener("pointerup", (event) => {
    if (!dragging) return;
    const from = dragging;
    dragging = null;
    go(from, place(event));
  });
  svg.addEventListener("pointercancel", () => { dragging = null; });
  svg.addEventListener("pointerleave", () => { if (!dragging && !cursor) rest(); });
  svg.addEventListener("keydown", (event) => {
    const [across, up] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key] || [0, 0];
    if (across || up) {
      event.preventDefault();
      if (cursor) cursor = [limit(cursor[0] + across, columns - 1), limit(cursor[1] + up, rows - 1)];
      else cursor = [...counts.keys()][counts.size - 1].split(",").map(Number);
      if (!event.shiftKey) anchor = cursor;
      draw(anchor || cursor, cursor);
    } else if (event.key === "Enter" && cursor) {
      go(anchor || cursor, cursor);
    } else if (event.key === "Escape") {
      rest();
    }
  });
  svg.addEventListener("blur", () => { if (!dragging) rest(); });

  function rest() {
    cursor = anchor = null;
    reading.textContent = hint;
    if (!svg.dataset.box) { box.setAttribute("hidden", ""); return; }
    const [from, to, low, high] = JSON.parse(svg.dataset.box);
    const left = limit((from - start) / step, columns), right = limit((to - start) / step, columns);
    const down = (value) => height - limit(edges.findIndex((edge) => edge >= value * 0.999999) < 0 ? rows : edges.findIndex((edge) => edge >= value * 0.999999), rows) / rows * height;
    box.setAttribute("x", `${left / columns * 100}%`);
    box.setAttribute("width", `${Math.max(right - left, 0) / columns * 100}%`);
    box.setAttribute("y", down(high));
    box.setAttribute("height", Math.max(down(low) - down(high), 0));
    box.removeAttribute("hidden");
  }
  rest();
}

function begin(root) {
  localTimes(root);
  root.querySelectorAll("#spans").forEach(waterfall);
  root.querySelectorAll("svg.heatmap").forEach(heatmap);
}

begin(document);
if (matchMedia("(max-width: 640px)").matches) document.querySelectorAll(".asked").forEach((asked) => { asked.open = false; });
if (main.hasAttribute("data-live")) {
  live.hidden = false;
  live.addEventListener("click", () => live.setAttribute("aria-pressed", String(live.getAttribute("aria-pressed") !== "true")));
  setTimeout(look, 1000);
}
