// Asks which of two names something gets that was sent: that of something else, or a free one.

// Puts the question of `sendFolder` (upload.js) into an element; promises the name that was chosen.
export function askInto(element, name, { before, name: free }, signal) {
  return new Promise((resolve, reject) => {
    const text = document.createElement("p");
    text.className = "mb-2";
    text.textContent = `There is already ${name}, and this has no file in common with ${before}. Is it the next version of that, or something else?`;
    const buttons = [[`Something else: ${free}`, free, "btn-primary"], [`A new version of ${name}`, name, "btn-outline-contrast"]];
    const made = buttons.map(([label, chosen, look]) => {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", textContent: label, className: `btn btn-sm me-2 mb-1 ${look}` });
      button.addEventListener("click", () => resolve(chosen));
      return button;
    });
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
    element.replaceChildren(text, ...made);
    made[0].focus();
  });
}
