// Saves tables as CSV (RFC 4180) and charts as PNG.

import { color } from "./chart.js";
import { element } from "./dom.js";

/**
 * Save a table.
 *
 * @param {string} name the name of the file, without its ending
 * @param {Array<string>} header the names of the columns
 * @param {Array<Array<string|number|null>>} rows
 */
export function saveCsv(name, header, rows) {
  const text = [header, ...rows].map((row) => row.map(cell).join(",")).join("\r\n");
  save(`${name}.csv`, new Blob([`${text}\r\n`], { type: "text/csv;charset=utf-8" }));
}

/**
 * Save a chart, with a title and the names of its lines above it.
 *
 * @param {string} name the name of the file, without its ending
 * @param {string} title
 * @param {Array<{label: string, color: string}>} lines the lines of the chart
 * @param {HTMLCanvasElement} canvas the chart
 */
export function savePng(name, title, lines, canvas) {
  const scale = canvas.width / canvas.clientWidth; // pixels of the canvas per CSS pixel
  const head = 52 * scale;
  const copy = element("canvas", { width: canvas.width, height: canvas.height + head });
  const context = copy.getContext("2d");
  context.fillStyle = color("--surface");
  context.fillRect(0, 0, copy.width, copy.height);
  context.font = `${14 * scale}px system-ui, sans-serif`;
  context.fillStyle = color("--text");
  context.fillText(title, 12 * scale, 20 * scale, copy.width - 24 * scale);
  let x = 12 * scale;
  for (const line of lines) {
    context.fillStyle = color(line.color);
    context.fillText(line.label, x, 42 * scale);
    x += context.measureText(line.label).width + 16 * scale;
  }
  context.drawImage(canvas, 0, head);
  copy.toBlob((blob) => save(`${name}.png`, blob));
}

/** Return a name for a file: without characters that some systems refuse. */
export const fileName = (...parts) => parts.join(" ").replaceAll(/[^A-Za-z0-9._ -]/g, "_");

function save(name, blob) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function cell(value) {
  if (value === null) return "";
  // A spreadsheet would run a text that begins with one of these characters as a formula.
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : `${value}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
