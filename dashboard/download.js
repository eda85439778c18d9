// Saves tables as CSV (RFC 4180) and charts as PNG.

import { color } from "./chart.js";
import { element } from "./dom.js";

const SCALE = 2; // pixels of a PNG per CSS pixel

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

/** Save a chart, with a title above it. */
export function savePng(name, title, canvas) {
  const head = 36 * SCALE;
  const copy = element("canvas", { width: canvas.width, height: canvas.height + head });
  const context = copy.getContext("2d");
  context.fillStyle = color("--surface");
  context.fillRect(0, 0, copy.width, copy.height);
  context.fillStyle = color("--text");
  context.font = `${14 * SCALE}px system-ui, sans-serif`;
  context.fillText(title, 12 * SCALE, 24 * SCALE, copy.width - 24 * SCALE);
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
