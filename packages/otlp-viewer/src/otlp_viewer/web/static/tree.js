// The rows of a waterfall: their expanded state, and rendering of only the visible ones.

import { count, duration } from "./format.js";

const make = (tag, className, text) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
};

export class Tree {
  // `list` is the scrolling element. Calls `changed` after the user expands, collapses or moves.
  constructor(list, changed) {
    this.list = list;
    this.changed = changed;
    this.sheet = make("div", "sheet");
    list.replaceChildren(this.sheet);
    this.drawn = new Map();
    this.hits = new Set();
    this.cursor = 0;
    this.chosen = -1;
    this.narrow = matchMedia("(max-width: 640px)");
    list.addEventListener("scroll", () => this.draw(), { passive: true });
    addEventListener("resize", () => { this.fit(); this.redraw(); });
  }

  get height() { return this.narrow.matches ? 42 : 24; }

  take(data) {
    const closed = this.data ? this.data.key.filter((_, row) => this.closed[row]) : [];
    const cursor = this.data && this.data.key[this.cursor], chosen = this.data && this.data.key[this.chosen];
    const { scrollTop } = this.list, top = Math.floor(scrollTop / this.height);
    const below = this.data && scrollTop > 0 ? this.open.slice(top).map((row) => this.data.key[row]) : [];
    const n = data.key.length, stack = [];
    // Times are in nanoseconds. These two are differences from the previous row.
    for (const name of ["start", "row"]) { let at = 0; data[name] = data[name].map((by) => at += by); }
    this.data = data;
    this.errors = new Set(data.error);
    this.parent = new Int32Array(n).fill(-1);
    this.end = new Int32Array(n).fill(n);  // after the last descendant
    this.children = new Int32Array(n + 1);  // of each row at its number and 1; at 0 the rows without a parent
    this.position = new Int32Array(n);  // among its siblings, from 1
    for (let row = 0; row < n; row++) {
      while (stack.length > data.depth[row]) this.end[stack.pop()] = row;
      if (stack.length) this.parent[row] = stack.at(-1);
      this.position[row] = ++this.children[this.parent[row] + 1];
      stack.push(row);
    }
    this.row = new Map(data.key.map((key, row) => [key, row]));
    this.stored = new Map(data.row.map((number, row) => [number, row]));
    this.closed = new Uint8Array(n);
    for (const key of closed) if (this.row.has(key)) this.closed[this.row.get(key)] = 1;
    this.cursor = this.row.get(cursor) ?? 0;
    this.chosen = this.row.get(chosen) ?? -1;
    this.zoom = this.zoom || [0, data.length];
    this.arrange();
    // Keep the top row where it was, whatever came above it.
    const kept = below.findIndex((key) => this.place.has(this.row.get(key)));
    if (kept >= 0) {
      this.list.scrollTop = this.place.get(this.row.get(below[kept])) * this.height + scrollTop - (top + kept) * this.height;
      this.draw();
    }
  }

  hasChildren(row) { return this.end[row] > row + 1; }

  // Find the rows that no collapsed row hides.
  arrange() {
    this.open = [];
    this.place = new Map();
    for (let row = 0; row < this.end.length;) {
      this.place.set(row, this.open.length);
      this.open.push(row);
      row = this.closed[row] ? this.end[row] : row + 1;
    }
    this.fit();
    this.redraw();
  }

  toggle(row, close = !this.closed[row]) {
    if (!this.hasChildren(row)) return;
    this.closed[row] = close ? 1 : 0;
    this.arrange();
    this.changed();
  }

  // Collapse or expand all rows with children that `wanted` selects.
  toggleAll(wanted, close) {
    for (let row = 0; row < this.end.length; row++) if (this.hasChildren(row) && wanted(row)) this.closed[row] = close ? 1 : 0;
    while (!this.place.has(this.cursor) && this.parent[this.cursor] >= 0) this.cursor = this.parent[this.cursor];
    this.arrange();
    this.moveTo(this.cursor);
    this.changed();
  }

  moveTo(row) {
    for (let above = this.parent[row]; above >= 0; above = this.parent[above]) this.closed[above] = 0;
    this.cursor = row;
    if (!this.place.has(row)) this.arrange();
    const top = this.place.get(row) * this.height, { scrollTop, clientHeight } = this.list;
    if (top < scrollTop) this.list.scrollTop = top;
    else if (top + this.height > scrollTop + clientHeight) this.list.scrollTop = top + this.height - clientHeight;
    this.draw();
    for (const [each, element] of this.drawn) this.highlight(each, element);
    this.list.setAttribute("aria-activedescendant", `row-${row}`);
  }

  step(by) {
    const at = Math.max(0, Math.min(this.open.length - 1, (this.place.get(this.cursor) ?? 0) + by));
    this.moveTo(this.open[at]);
  }

  // The next of `rows` (ascending) after or before the cursor, wrapping around.
  next(rows, by) {
    if (!rows.length) return;
    const after = by > 0 ? rows.find((row) => row > this.cursor) ?? rows[0] : rows.findLast((row) => row < this.cursor) ?? rows.at(-1);
    this.moveTo(after);
    return rows.indexOf(after);
  }

  fit() {
    if (!this.open) return;
    const room = Math.max(260, innerHeight - this.list.getBoundingClientRect().top - scrollY - 20);
    this.list.style.height = `${Math.min(this.open.length * this.height, room)}px`;
    this.sheet.style.height = `${this.open.length * this.height}px`;
  }

  redraw() {
    for (const element of this.drawn.values()) element.remove();
    this.drawn.clear();
    this.draw();
  }

  draw() {
    const first = Math.max(0, Math.floor(this.list.scrollTop / this.height) - 8);
    const last = Math.min(this.open.length, Math.ceil((this.list.scrollTop + this.list.clientHeight) / this.height) + 8);
    const wanted = new Set();
    const added = document.createDocumentFragment();
    for (let at = first; at < last; at++) {
      const row = this.open[at];
      wanted.add(row);
      if (this.drawn.has(row)) continue;
      const element = this.element(row);
      element.style.top = `${at * this.height}px`;
      this.drawn.set(row, element);
      added.append(element);
    }
    for (const [row, element] of this.drawn) if (!wanted.has(row)) { element.remove(); this.drawn.delete(row); }
    this.sheet.append(added);
  }

  highlight(row, element) {
    element.classList.toggle("chosen", row === this.chosen);
    element.classList.toggle("cursor", row === this.cursor);
    element.classList.toggle("hit", this.hits.has(row));
    element.setAttribute("aria-selected", row === this.chosen);
  }

  element(row) {
    const { data } = this, service = data.services[data.service[row]], failed = this.errors.has(row);
    const element = make("div", failed ? "row failed" : "row");
    this.highlight(row, element);
    element.id = `row-${row}`;
    element.dataset.row = row;
    element.setAttribute("role", "treeitem");
    element.setAttribute("aria-level", data.depth[row] + 1);
    element.setAttribute("aria-posinset", this.position[row]);
    element.setAttribute("aria-setsize", this.children[this.parent[row] + 1]);
    const label = make("span", "label");
    label.style.paddingLeft = `${Math.min(data.depth[row], 14) * 13}px`;
    const twist = make("span", "twist", this.hasChildren(row) ? (this.closed[row] ? "▸" : "▾") : "");
    if (this.hasChildren(row)) element.setAttribute("aria-expanded", !this.closed[row]);
    twist.setAttribute("aria-hidden", "true");
    const mark = make("span", `mark s${service[1]}`);
    mark.setAttribute("aria-hidden", "true");
    label.append(twist, mark, make("span", "name", data.names[data.name[row]] || "(no name)"));
    if (this.closed[row]) label.append(" ", make("span", "tag", `+${count(this.end[row] - row - 1)}`));
    if (failed) label.append(" ", make("span", "bad", "error"));
    if (data.notes[row]) label.append(" ", make("span", "remark", data.notes[row]));
    const logs = data.logs[row];
    if (logs) label.append(" ", make("span", `tag${logs[1] >= 17 ? " bad" : logs[1] >= 13 ? " warn" : ""}`, `${count(logs[0])} log${logs[0] === 1 ? "" : "s"}`));
    if (this.parent[row] < 0 || data.service[this.parent[row]] !== data.service[row]) label.append(" ", make("span", "quiet", service[0]));
    if (data.depth[row] > 14) label.append(" ", make("span", "quiet", `+${data.depth[row] - 14} deeper`));
    if (data.texts[data.text[row]]) label.append(" ", make("span", "quiet", data.texts[data.text[row]]));
    label.title = `${data.names[data.name[row]]} · ${service[0]}`;
    element.append(label, this.bar(row, service[1]), make("span", "took", duration(data.took[row] / 1e6)));
    return element;
  }

  // When the trace waits for the row and for none of its children.
  critical(row) {
    const { data } = this, waited = (one) => data.partly[one] || (data.waited[one] ? [data.start[one], data.took[one]] : null);
    const whole = waited(row), below = [], found = [];
    if (!whole) return found;
    for (let child = row + 1; child < this.end[row]; child = this.end[child]) if (waited(child)) below.push(waited(child));
    const near = (this.zoom[1] - this.zoom[0]) / 2000;  // too close to distinguish
    let at = whole[0];
    for (const [start, took] of [...below.sort((a, b) => a[0] - b[0]), [whole[0] + whole[1], 0]]) {
      const last = found.at(-1);
      if (start > at && last && at - last[1] < near) last[1] = start;
      else if (start > at) found.push([at, start]);
      at = start + took;
    }
    return found;
  }

  bar(row, slot) {
    const { data } = this, [from, to] = this.zoom, length = to - from;
    const time = make("span", "time");
    const part = (className, start, end) => {
      if (end < from || start > to) return;
      const bar = make("span", className), left = Math.max((start - from) / length, 0);
      bar.style.left = `${left * 100}%`;
      if (end > start) bar.style.width = `${(Math.min((end - from) / length, 1) - left) * 100}%`;
      time.append(bar);
    };
    part(`bar-span s${slot}`, data.start[row], data.start[row] + data.took[row]);
    for (const [start, end] of this.critical(row)) part("bar-critical", start, end);
    for (const at of data.events[row] || []) part("bar-event", at, at);
    return time;
  }
}
