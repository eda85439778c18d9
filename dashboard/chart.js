// Draws charts with uPlot, and small curves as SVG.

import { element, svg } from "./dom.js";
import { compact, isUtc, number, tick } from "./format.js";

const HEIGHT = 280; // in CSS pixels

/**
 * @typedef {object} Line a series of a chart
 * @property {string} label its name
 * @property {Array<?number>} values one for each time
 * @property {"bars"|"line"|"points"} form
 * @property {string} color the name of a color in style.css, such as `--up`
 */

/**
 * Return a chart that can be used with the pointer and with the arrow keys.
 *
 * @param {object} options
 *   `times`: the times, in seconds since the epoch;
 *   `lines`: an Array of Line;
 *   `band`: an area to show behind the lines: `{low, high}`, each an Array of numbers or null;
 *   `summary`: what the chart shows, for people who cannot see it;
 *   `describe`: a function that returns the text for the time with an index;
 *   `step`: the length of an interval, in seconds;
 *   `fromZero`: whether the vertical axis includes 0;
 *   `signal`: an AbortSignal. When it is aborted, the chart is removed.
 * @returns {{node: HTMLElement, canvas: HTMLCanvasElement, draw: function(object=),
 *   cursor: function(): {index: ?number, hasFocus: boolean}}} Put `node`
 *   into the page, then call `draw`. Before that, the chart is empty and has no `canvas`. `cursor`
 *   returns the index of the time at the cursor, and whether the chart has the focus. The index is
 *   null if nobody uses the chart. To replace a chart, pass the result of its `cursor` to `draw` of
 *   the new one.
 */
export function chart(options) {
  const readout = element("p", { class: "readout", "aria-live": "polite" });
  const plot = element("div", {
    class: "plot", tabindex: "0", role: "img", "aria-label": options.summary,
  });
  const node = element("div", { class: "chart" }, readout, plot);
  let graph = null;

  const show = (index) => {
    readout.textContent = index === null || index === undefined ? "" : options.describe(index);
  };
  const cursor = () => {
    const hasFocus = plot === document.activeElement; // also while the window is not active
    const isUsed = hasFocus || plot.matches(":hover");
    return { hasFocus, index: isUsed ? graph.cursor.idx ?? null : null };
  };
  const draw = ({ index, hasFocus } = { index: null, hasFocus: false }) => {
    graph?.destroy();
    graph = new uPlot(settings(options, plot.clientWidth, index, show), table(options), plot);
    if (hasFocus) plot.focus({ preventScroll: true });
  };
  const redraw = () => draw(cursor());
  const resized = new ResizeObserver(() => {
    if (graph !== null && plot.clientWidth !== graph.width) {
      graph.setSize({ width: plot.clientWidth, height: HEIGHT });
    }
  });
  resized.observe(plot);
  const { signal } = options;
  plot.addEventListener("keydown", (event) => move(event, graph));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw, { signal });
  document.addEventListener("redraw", redraw, { signal });
  signal.addEventListener("abort", () => {
    resized.disconnect();
    graph?.destroy();
  });
  return { node, get canvas() { return graph.ctx.canvas; }, draw, cursor };
}

/** Return a small curve without axes. */
export function curve(values) {
  const [width, height] = [120, 28];
  const top = Math.max(...values, 1);
  const points = values.map((value, index) => {
    const x = (index / Math.max(1, values.length - 1)) * width;
    return `${x.toFixed(1)},${(height - 1 - (value / top) * (height - 2)).toFixed(1)}`;
  });
  return svg("svg", {
    class: "curve", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true", width, height,
  },
  svg("polygon", { points: `0,${height} ${points.join(" ")} ${width},${height}` }),
  svg("polyline", { points: points.join(" ") }));
}

/** Return a color of style.css in the current theme, as the canvas needs it. */
export function color(name) {
  const probe = element("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const computed = getComputedStyle(probe).color;
  probe.remove();
  return computed;
}

/** Move the cursor of a chart with the arrow keys, Home and End. */
function move(event, graph) {
  const at = graph.cursor.idx;
  const count = graph.data[0].length;
  const target = {
    ArrowLeft: (at ?? count) - 1, ArrowRight: (at ?? -1) + 1, Home: 0, End: count - 1,
  }[event.key];
  if (target === undefined) return;
  event.preventDefault();
  point(graph, target);
}

/** Move the cursor of a chart to the time with an index, or to the nearest one that there is. */
function point(graph, index) {
  const times = graph.data[0];
  const time = times[Math.min(Math.max(index, 0), times.length - 1)];
  graph.setCursor({ left: graph.valToPos(time, "x"), top: HEIGHT / 2 });
}

/** Return the data in uPlot's form: the times, then each series. */
function table({ times, lines, band }) {
  return [times, ...(band ? [band.high, band.low] : []), ...lines.map((line) => line.values)];
}

/** Return the settings of uPlot. `index` is where the cursor is first; null if there is none. */
function settings({ lines, band, step, fromZero }, width, index, show) {
  const edge = { points: { show: false }, stroke: color("--expected-edge"), width: 1 };
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
    tzDate: (seconds) => (isUtc()
      ? uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC") : new Date(seconds * 1000)),
    scales: {
      x: { range: (_, first, last) => [first - step / 2, last + step / 2] },
      y: { range: (_, low, high) => range(low, high, fromZero) },
    },
    axes: [
      { ...axis(), space: 70, size: 30, values: tickTexts },
      { ...axis(), size: widthOf, values: numberTexts },
    ],
    bands: band ? [{ series: [1, 2], fill: color("--expected") }] : [],
    series: [{}, ...(band ? [edge, edge] : []), ...lines.map(series)],
    hooks: {
      setCursor: [(graph) => show(graph.cursor.idx)],
      // Only now does the chart know where its times are.
      ready: [(graph) => index === null || point(graph, index)],
    },
  };
}

function tickTexts(_graph, ticks, _axis, _space, distance) {
  return ticks.map((at) => tick(at, distance));
}

function numberTexts(_graph, ticks, _axis, _space, distance) {
  return ticks.map(distance < 1000 ? number : compact);
}

/** Return the width that the numbers of the vertical axis need, in CSS pixels. */
function widthOf(_graph, texts) {
  return 20 + 7 * Math.max(3, ...(texts ?? []).map((text) => text.length));
}

function axis() {
  return {
    stroke: color("--quiet"), font: "12px system-ui, sans-serif",
    grid: { stroke: color("--line"), width: 1 }, ticks: { show: false },
  };
}

function series({ label, form, color: name }) {
  const paint = color(name);
  if (form === "bars") {
    return {
      label, stroke: paint, fill: paint, width: 0, points: { show: false },
      alpha: 0.75, // so that the band is visible behind the bars
      paths: uPlot.paths.bars({ size: [0.8, 60] }),
    };
  }
  if (form === "points") {
    return {
      label, stroke: paint, paths: () => null,
      points: { show: true, size: 11, width: 2, stroke: paint, fill: color("--surface") },
    };
  }
  return { label, stroke: paint, width: 2, points: { show: false } };
}

/** Return the range of the vertical axis: with a margin, and never empty. */
function range(low, high, fromZero) {
  if (low === null || high === null) return [0, 1];
  const [least, most] = fromZero ? [Math.min(low, 0), Math.max(high, 0)] : [low, high];
  const margin = (most - least) * 0.08 || 1;
  return [least < 0 || !fromZero ? least - margin : 0, most > 0 || !fromZero ? most + margin : 0];
}
