// Makes an element what another one is, and touches only what differs: what is selected, focused or pressed stays.
// Nothing is ever moved, for a browser forgets what is selected in what moves: of two lists of children the longest
// common row is kept where it is, by their ids as far as they have some.

const signOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? `${node.nodeName}#${node.id}` : node.nodeName);

// keeps(old, name): whether an attribute is the page's own, and stays; without a name, whether all of an element is.
export function morph(old, fresh, keeps) {
  if (old.isEqualNode(fresh) || keeps(old)) return;
  for (const { name } of Array.from(old.attributes)) {
    if (!fresh.hasAttribute(name) && !keeps(old, name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value && !keeps(old, name)) old.setAttribute(name, value);
  }
  const [were, are] = [Array.from(old.childNodes), Array.from(fresh.childNodes)];
  const kept = pairs(were.map(signOf), are.map(signOf));
  const staying = new Set(kept.values());
  for (const node of were.filter((_, at) => !staying.has(at))) node.remove();
  let next = null; // what stands behind; from the last to the first
  for (let at = are.length - 1; at >= 0; at--) {
    const there = kept.has(at) ? were[kept.get(at)] : document.adoptNode(are[at]);
    if (!kept.has(at)) old.insertBefore(there, next);
    else if (there.nodeType === Node.ELEMENT_NODE) morph(there, are[at], keeps);
    else if (there.data !== are[at].data) there.data = are[at].data;
    next = there;
  }
}

// The longest common row of two: index in the second → index in the first.
function pairs(a, b) {
  const found = new Map();
  let [first, endA, endB] = [0, a.length, b.length];
  while (first < endA && first < endB && a[first] === b[first]) found.set(first, first++);
  while (endA > first && endB > first && a[endA - 1] === b[endB - 1]) found.set(--endB, --endA);
  const [rows, columns] = [endA - first, endB - first];
  const length = Array.from({ length: rows + 1 }, () => new Uint32Array(columns + 1));
  for (let i = rows - 1; i >= 0; i--) {
    for (let j = columns - 1; j >= 0; j--) {
      const same = a[first + i] === b[first + j];
      length[i][j] = same ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
    }
  }
  for (let i = 0, j = 0; i < rows && j < columns; ) {
    if (a[first + i] === b[first + j]) found.set(first + j++, first + i++);
    else if (length[i + 1][j] >= length[i][j + 1]) i++;
    else j++;
  }
  return found;
}
