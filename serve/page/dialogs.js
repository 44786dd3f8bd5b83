// The help, the token, the error said over the film.
import { Refusal } from "./api.js";
import { made } from "./dom.js";
import { knows, say } from "./i18n.js";
import { listKeys } from "./keys.js";

const MEANINGS = ["meaningMouse", "meaningWords", "meaningThreshold", "meaningBoxes", "meaningMap", "meaningTruth"];
const TITLES = { 0: "errorSilent", 401: "errorToken", 429: "errorBusy", 503: "errorBusy" };

export function fillHelp() {
  listKeys(document.getElementById("key-list"));
  const list = document.getElementById("meanings");
  list.replaceChildren(...MEANINGS.map((key) => made("li", { textContent: say(key) })));
}

/** Asks for the token: a promise of it, or of null. What was typed is wiped from the field at once. */
export function askToken(wrong) {
  const dialog = document.getElementById("token");
  const field = document.getElementById("token-value");
  const text = document.getElementById("token-text");
  text.dataset.say = wrong ? "tokenWrong" : "tokenText";
  text.textContent = say(text.dataset.say);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const token = field.value.trim();
      field.value = "";
      resolve(dialog.returnValue === "send" && token ? token : null);
    }, { once: true });
  });
}

/** Title, text and detail of an error: a refusal, a picture that no browser shows, or a defect of the page. */
export function told(error) {
  if (error instanceof DOMException) return { title: "errorTitle", text: "errorNoPicture", detail: "" };
  if (!(error instanceof Refusal)) return { title: "errorTitle", text: "errorPage", detail: "" };
  const { status, message } = error;
  const family = knows(`error${status}`) ? `error${status}` : status >= 500 ? "error500" : "error400";
  const title = TITLES[status] ?? (status >= 500 ? "errorServer" : "errorTitle");
  return { title, text: family, detail: message };
}
