// Turns the table of a slider's figure into bars of one row, which the reader chooses.
"use strict";

function element(name, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
}

// A scale from 0, or from where the numbers begin if they are all far from it.
function scaleOf(cells) {
  const low = Math.min(...cells.map((cell) => Number(cell.dataset.low)));
  const high = Math.max(...cells.map((cell) => Number(cell.dataset.high)));
  const first = low > 0.5 * high ? Math.floor(low / 10) * 10 : Math.min(0, low);
  return { first, place: (value) => (100 * (value - first)) / (high - first) };
}

function bar(header, unit) {
  const fill = element("span", { className: "value" });
  const whisker = element("span", { className: "interval" });
  const number = element("span", { className: "number" });
  fill.style.background = header.dataset.colour;
  const track = element("div", { className: "track", ariaHidden: "true" }, fill, whisker);
  const line = element("div", { className: "line" },
    element("span", { textContent: header.textContent }), track, number);
  const show = (cell, { first, place }) => {
    const { value, low, high } = cell.dataset;
    const [from, to] = [Math.min(value, Math.max(first, 0)), Math.max(value, first, 0)];
    fill.style.left = `${place(from)}%`;
    fill.style.width = `${place(to) - place(from)}%`;
    whisker.style.left = `${place(low)}%`;
    whisker.style.width = `${place(high) - place(low)}%`;
    number.textContent = `${cell.textContent} ${unit}`;
  };
  return { line, show };
}

for (const figure of document.querySelectorAll("figure.slider")) {
  const [axis, ...headers] = figure.querySelectorAll("thead th");
  const rows = [...figure.querySelectorAll("tbody tr")];
  const scale = scaleOf([...figure.querySelectorAll("td")]);
  const bars = headers.map((header) => bar(header, figure.dataset.unit));
  const chosen = element("span", { className: "chosen" });
  const range = element("input",
    { type: "range", min: 0, max: rows.length - 1, value: 0, ariaLabel: axis.textContent });
  const show = () => {
    const [name, ...cells] = rows[range.value].cells;
    chosen.textContent = name.textContent;
    const told = cells.map(
      (cell, place) => `${headers[place].textContent} ${cell.textContent} ${figure.dataset.unit}`);
    range.ariaValueText = [name.textContent, ...told].join("; ");
    cells.forEach((cell, place) => bars[place].show(cell, scale));
  };
  range.addEventListener("input", show);
  const start = element("p", { className: "from", textContent: `Bars begin at ${scale.first} ${figure.dataset.unit}.` });
  figure.querySelector("details").open = false;
  figure.querySelector("figcaption").after(
    element("label", {}, `${axis.textContent}: `, chosen, range),
    ...bars.map(({ line }) => line),
    ...(scale.first > 0 ? [start] : []),
  );
  show();
}
