// Elements of the page. All text is set as text: no HTML is ever made of a string.

const SVG = "http://www.w3.org/2000/svg";

/** Return an element with attributes; children are nodes or texts. */
export function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** Return an element of SVG with attributes. */
export function makeSvg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

/** Return a file's name with what is no letter escaped: none turns the writing of what follows. */
export function shownName(name) {
  const code = (letter) => letter.charCodeAt(0).toString(16).padStart(4, "0");
  return name.toWellFormed().replace(UNSEEN, (letter) => `\\u${code(letter)}`);
}

/** Say something to those who hear the page. */
export function announce(text) {
  byId("spoken").textContent = text;
}

/** Return the element of an id. */
export const byId = (id) => document.getElementById(id);

/** Return an image, JPEG or PNG in base64, with the text that stands for it; null: a place. */
export function picture(encoded, label) {
  if (!encoded) return place(label);
  const canvas = make("canvas", { role: "img", "aria-label": label, width: 112, height: 112 });
  draw(canvas, encoded).catch(() => canvas.replaceWith(place(label)));
  return canvas;
}

function place(label) {
  return make("span", { class: "none", role: "img", "aria-label": `${label}: no picture` },
    "no picture");
}

/** Draw an image, JPEG or PNG in base64, on a canvas of its size. */
export async function draw(canvas, encoded) {
  const image = await createImageBitmap(new Blob([bytes(encoded)]));
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d").drawImage(image, 0, 0);
  image.close();
}

function bytes(encoded) {
  return Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
}

/** Return a share in percent with the digits that tell it from 0 and from 1. */
export function percent(share) {
  const near = Math.min(share, 1 - share);
  if (near <= 0) return `${share * 100}%`;
  const digits = Math.min(6, Math.max(1, Math.ceil(-Math.log10(near)) - 1));
  return `${(share * 100).toFixed(digits)}%`;
}

/** Return a whole number with commas. */
export const count = (number) => Math.round(number).toLocaleString("en-US");
