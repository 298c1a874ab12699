// The minimap, where dragging zooms in, and the time scale above the rows.

import { duration } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";

export function drawScale(svg, [from, to], length) {
  const power = 10 ** Math.floor(Math.log10((to - from) / 4)), step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => (to - from) / one <= 5.01);
  const ticks = [];
  for (let at = Math.ceil(from / step - 1e-9) * step; at <= to * (1 + 1e-9); at += step) ticks.push(at);
  // Vertical grid lines, one for each tick.
  const grid = svg.closest(".waterfall").style, part = step / (to - from);
  grid.setProperty("--tick", `${part * 100}%`);
  grid.setProperty("--first-tick", `${(ticks[0] - from) / (to - from) / (1 - part) * 100}%`);
  svg.replaceChildren(...ticks.filter((at) => (at - from) / (to - from) <= 0.94).map((at, index) => {
    const text = document.createElementNS(SVG, "text"), x = (at - from) / (to - from);
    text.setAttribute("x", `${x * 100}%`);
    text.setAttribute("y", 13);
    text.setAttribute("text-anchor", x < 0.03 ? "start" : "middle");
    if (index % 2) text.classList.add("between");
    text.textContent = duration(Math.abs(at) < step * 1e-6 ? 0 : at / 1e6).replace(/\.(\d*?)0+(?=\D)/, (_, rest) => rest ? `.${rest}` : "");
    return text;
  }));
}

export class Overview {
  // Calls `zoomed` with start and end in nanoseconds after the user has dragged over a part.
  constructor(canvas, zoomed) {
    this.canvas = canvas;
    this.zoomed = zoomed;
    let from = null;
    const at = (event) => { const around = canvas.getBoundingClientRect(); return Math.max(0, Math.min(1, (event.clientX - around.left) / around.width)) * this.tree.data.length; };
    canvas.addEventListener("pointerdown", (event) => { from = at(event); canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointermove", (event) => { if (from !== null) this.draw(this.tree, [from, at(event)].sort((a, b) => a - b)); });
    canvas.addEventListener("pointerup", (event) => {
      if (from === null) return;
      const part = [from, at(event)].sort((a, b) => a - b);
      from = null;
      if (part[1] - part[0] > this.tree.data.length / 200) this.zoomed(part);
      else this.draw(this.tree, this.tree.zoom);
    });
    addEventListener("resize", () => { if (this.tree) this.draw(this.tree, this.tree.zoom); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw(this.tree, this.tree.zoom));
  }

  draw(tree, [from, to]) {
    this.tree = tree;
    const { canvas } = this, { data } = tree, height = 36, ratio = devicePixelRatio || 1;
    const width = canvas.clientWidth;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const pen = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
    pen.scale(ratio, ratio);
    const colors = data.services.map(([, slot]) => style.getPropertyValue(`--c${slot}`)), bad = style.getPropertyValue("--bad");
    const n = data.key.length, line = Math.max(height / n, 1);
    for (let row = 0; row < n; row++) {
      pen.fillStyle = colors[data.service[row]];
      pen.fillRect(data.start[row] / data.length * width, row / n * (height - line), Math.max(data.took[row] / data.length * width, 1), line);
    }
    pen.fillStyle = bad;
    for (const row of data.error) pen.fillRect(data.start[row] / data.length * width, row / n * (height - line), Math.max(data.took[row] / data.length * width, 2), Math.max(line, 2));
    if (from > 0 || to < data.length) {
      pen.fillStyle = style.getPropertyValue("--veil");
      pen.fillRect(0, 0, from / data.length * width, height);
      pen.fillRect(to / data.length * width, 0, width, height);
    }
  }
}
