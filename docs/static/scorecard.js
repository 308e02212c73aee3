// Filters and sorts the claims. Without it the table shows all of them.
"use strict";

const form = document.getElementById("filters");
const body = document.querySelector("#claims tbody");
const rows = [...body.rows];

function filter() {
  const wanted = [...new FormData(form)].filter(([, value]) => value);
  for (const row of rows) {
    row.hidden = !wanted.every(([name, value]) => row.dataset[name].split(",").includes(value));
  }
  const shown = rows.filter((row) => !row.hidden).length;
  form.querySelector("output").value = `${shown} of ${rows.length} claims`;
  const query = new URLSearchParams(wanted).toString();
  history.replaceState(null, "", (query ? `?${query}` : location.pathname) + location.hash);
}

// Numbers by value, words by alphabet, what is empty last.
function compare(one, other) {
  if (one === "" || other === "") return (one === "") - (other === "");
  const difference = Number(one) - Number(other);
  return Number.isNaN(difference) ? one.localeCompare(other) : difference;
}

function sort(column, header) {
  const descending = header.ariaSort === "ascending";
  for (const other of header.parentElement.cells) other.ariaSort = null;
  header.ariaSort = descending ? "descending" : "ascending";
  const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
  const sign = (a, b) => (a === "" || b === "" || !descending ? 1 : -1);
  rows.sort((a, b) => sign(key(a), key(b)) * compare(key(a), key(b)));
  body.append(...rows);
}

function open() {
  const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!rows.includes(row)) return;
  row.hidden = false;
  row.querySelector("details").open = true;
  row.scrollIntoView();
}

for (const [name, value] of new URLSearchParams(location.search)) {
  if (form.elements[name]) form.elements[name].value = value;
}
form.addEventListener("change", filter);
document.querySelectorAll("#claims th").forEach((header, column) => {
  header.firstElementChild.addEventListener("click", () => sort(column, header));
});
window.addEventListener("hashchange", open);
filter();
open();
