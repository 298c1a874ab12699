// Charts: a heatmap's cell opens a trace, a box compares spans, and a line's point opens its traces.

import { amount, clock, day, isToday, plural } from "./format.js";

const number = (element, name) => Number(element.dataset[name]);
const limit = (value, most) => Math.max(0, Math.min(most, value));

// Positions and times of a chart's columns.
function axisOf(svg) {
  const [step, columns, width] = ["step", "columns", "width"].map((name) => number(svg, name));
  const periods = JSON.parse(svg.dataset.periods).map(([start, first, length, x]) => ({ start, first, length, x }));
  const of = (column) => periods.findLast((period) => period.first <= column) || periods[0];
  return {
    step, columns,
    left: (column) => { const period = of(column); return (period.x + column - period.first) / width; },
    right: (column) => { const period = of(column - 1); return (period.x + column - period.first) / width; },
    start: (column) => { const period = of(column); return period.start + (column - period.first) * step; },
    end: (column) => { const period = of(column - 1); return period.start + (column - period.first) * step; },
    column: (share) => {
      const x = share * width, period = periods.findLast((each) => each.x <= x) || periods[0];
      return limit(period.first + Math.min(Math.floor(x - period.x), period.length - 1), columns - 1);
    },
    nearest: (time) => {
      const period = periods.findLast((each) => each.start <= time + 1e-6) || periods[0];
      return period.first + limit((time - period.start) / step, period.length);
    },
  };
}

const when = (seconds, step) => { const at = new Date(seconds * 1000); return (isToday(at) ? "" : `${day(at)} `) + clock(at, step < 60 ? step : 1); };

function heatmap(svg) {
  const axis = axisOf(svg);
  const [rows, height] = ["rows", "height"].map((name) => number(svg, name));
  const edges = svg.dataset.edges ? JSON.parse(svg.dataset.edges) : null;
  const names = svg.dataset.names ? JSON.parse(svg.dataset.names) : null;
  const counts = new Map(JSON.parse(svg.dataset.cells).map(([x, y, n]) => [`${x},${y}`, n]));
  const box = svg.querySelector(".box");
  const reading = svg.closest(".chart").querySelector(".reading");
  const hint = reading.textContent;
  let cursor = null, anchor = null, dragging = null;

  const place = (event) => {
    const around = svg.getBoundingClientRect();
    return [axis.column((event.clientX - around.left) / around.width), limit(rows - 1 - Math.floor((event.clientY - around.top) / height * rows), rows - 1)];
  };
  const bounds = (a, b) => [Math.min(a[0], b[0]), Math.max(a[0], b[0]) + 1, Math.min(a[1], b[1]), Math.max(a[1], b[1]) + 1];
  const frame = (left, right, bottom, top) => {
    box.setAttribute("x", `${left * 100}%`);
    box.setAttribute("width", `${Math.max(right - left, 0.002) * 100}%`);
    box.setAttribute("y", height - top / rows * height);
    box.setAttribute("height", Math.max(top - bottom, 0.2) / rows * height);
    box.removeAttribute("hidden");
  };
  const draw = (a, b) => {
    const [left, right, bottom, top] = bounds(a, b);
    frame(axis.left(left), axis.right(right), bottom, top);
    let inside = 0;
    for (const [at, n] of counts) { const [x, y] = at.split(",").map(Number); if (x >= left && x < right && y >= bottom && y < top) inside += n; }
    const range = edges ? `${amount(edges[bottom], svg.dataset.unit)} to ${amount(edges[top], svg.dataset.unit)}` : names.slice(bottom, top).join(", ");
    const many = right - left > 1 || top - bottom > 1;
    const next = !inside ? "" : svg.dataset.kind === "logs" ? ". Click, or Enter, to see them." :
      many ? ". Enter, or let go, to see what sets them apart." : ". Click, or Enter, to open the slowest.";
    reading.textContent = `${when(axis.start(left), axis.step)} to ${when(axis.end(right), axis.step)}, ${range}: ${plural(inside, svg.dataset.kind === "logs" ? "log" : "span")}${next}`;
    return inside;
  };
  const go = (a, b) => {
    const [left, right, bottom, top] = bounds(a, b);
    if (!draw(a, b)) return;
    const times = { start: axis.start(left), end: axis.end(right) };
    if (svg.dataset.kind === "logs" && edges) {
      const { column, query } = svg.dataset;
      const also = JSON.stringify([{ column, op: ">=", value: edges[bottom] }, { column, op: top === rows ? "<=" : "<", value: edges[top] }]);
      location.assign(`/logs?${new URLSearchParams({ ...(query === "{}" ? {} : { query }), also, ...times })}`);
      return;
    }
    if (svg.dataset.kind === "logs") {
      const address = new URL(location.href);
      for (const name of ["range", "from"]) address.searchParams.delete(name);
      for (const [name, at] of Object.entries(times)) address.searchParams.set(name, at);
      const low = JSON.parse(svg.dataset.lows)[bottom];
      if (low) address.searchParams.set("severity", low);
      location.assign(address);
      return;
    }
    const area = [times.start, times.end, edges[bottom], edges[top], svg.dataset.column].join(",");
    const one = right - left === 1 && top - bottom === 1;
    location.assign(`${one ? "/query/slowest" : "/query"}?${new URLSearchParams({ query: svg.dataset.query, box: area })}${one ? "" : "#comparison"}`);
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
      if (cursor) cursor = [limit(cursor[0] + across, axis.columns - 1), limit(cursor[1] + up, rows - 1)];
      else cursor = [...counts.keys()].at(-1).split(",").map(Number);
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
    const row = (value) => { const at = edges.findIndex((edge) => edge >= value * 0.999999); return at < 0 ? rows : at; };
    frame(axis.left(axis.nearest(from)), axis.right(axis.nearest(to)), row(low), row(high));
  }
  rest();
}

function lines(svg) {
  const axis = axisOf(svg), height = number(svg, "height");
  const drawn = JSON.parse(svg.dataset.lines), groups = JSON.parse(svg.dataset.groups);
  const reading = svg.closest(".chart").querySelector(".reading"), here = svg.querySelector(".here");
  const all = drawn.flatMap(([, values]) => values.map(([, value]) => value));
  const low = Math.min(0, ...all), high = Math.max(0, ...all) > low ? Math.max(0, ...all) : low + 1;
  const down = (value) => height - (value - low) / (high - low) * height;
  const points = drawn.flatMap(([group, values]) => values.map(([column, value]) => ({ group, column, value, y: down(value) }))).sort((a, b) => a.column - b.column || a.group - b.group);
  let chosen = -1;
  const isDrawn = (point) => point.group < number(svg, "first") || document.querySelector(".more-lines[open]");

  const label = (group) => groups[group].map((one) => one.op === "=" ? String(one.value) : "(missing)").join(", ");
  const show = (at) => {
    chosen = at;
    const point = points[at];
    here.setAttribute("cx", `${(axis.left(point.column) + axis.right(point.column + 1)) * 50}%`);
    here.setAttribute("cy", point.y);
    here.removeAttribute("hidden");
    const text = label(point.group);
    reading.textContent = `${when(axis.start(point.column), axis.step)}: ${amount(point.value, svg.dataset.unit)}${text ? `, ${text.slice(0, 120)}` : ""}`;
  };
  const go = () => {
    if (chosen < 0) return;
    const point = points[chosen], about = { start: axis.start(point.column), end: axis.start(point.column) + axis.step };
    if (svg.dataset.query !== "{}") about.query = svg.dataset.query;
    if (groups[point.group].length) about.also = JSON.stringify(groups[point.group]);
    location.assign(svg.dataset.kind === "logs" ? `/logs?${new URLSearchParams(about)}` : `/traces?${new URLSearchParams({ ...about, sort: "duration" })}`);
  };
  const step = (by) => {
    const able = points.flatMap((point, at) => isDrawn(point) ? [at] : []), now = able.indexOf(chosen);
    show(able[now < 0 ? able.length - 1 : limit(now + by, able.length - 1)]);
  };
  svg.addEventListener("pointermove", (event) => {
    const around = svg.getBoundingClientRect();
    let best = -1, distance = Infinity;
    points.forEach((point, at) => {
      if (!isDrawn(point)) return;
      const x = (axis.left(point.column) + axis.right(point.column + 1)) / 2 * around.width;
      const away = (x - (event.clientX - around.left)) ** 2 + (point.y - (event.clientY - around.top)) ** 2;
      if (away < distance) { distance = away; best = at; }
    });
    if (best >= 0) show(best);
  });
  svg.addEventListener("pointerleave", rest);
  svg.addEventListener("blur", rest);
  svg.addEventListener("click", go);
  svg.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) { event.preventDefault(); step(by); }
    else if (event.key === "Enter") go();
    else if (event.key === "Escape") rest();
  });
  function rest() { chosen = -1; here.setAttribute("hidden", ""); reading.textContent = ""; }
}

function begin() {
  document.querySelectorAll("svg.heatmap").forEach(heatmap);
  document.querySelectorAll("svg.lines").forEach(lines);
}

begin();
document.getElementById("main").addEventListener("renewed", begin);
