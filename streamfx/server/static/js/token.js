// Asks for the server's token.

/** Shows the dialogue; resolves with what was entered. */
export function askForToken(wrong) {
  const dialog = document.getElementById("token-dialog");
  const input = document.getElementById("token-input");
  const problem = document.getElementById("token-problem");
  problem.hidden = !wrong;
  problem.textContent = wrong ? "That token is not the right one." : "";
  input.value = "";
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    const go = () => {
      if (!input.value.trim()) return;
      dialog.close();
      resolve(input.value.trim());
    };
    document.getElementById("token-go").onclick = go;
    input.onkeydown = (event) => event.key === "Enter" && go();
    dialog.oncancel = (event) => event.preventDefault(); // there is nothing to see without it
  });
}
