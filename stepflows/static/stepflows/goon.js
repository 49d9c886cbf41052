// Presses the button of a form that only waits for somebody to say "go on".
"use strict";

document.querySelector("form[data-stepflows-go-on]")?.requestSubmit();
