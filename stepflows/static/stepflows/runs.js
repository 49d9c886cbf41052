"use strict";

// The page of a run that is under way is brought up to date until it is finished, without taking from anybody the focus,
// what they have scrolled to, unfolded or marked. Without it there is a link that does the same.
{
    const PAUSE = 1000;
    const LONGEST_PAUSE = 30000;

    function parts(root) {
        return [...root.children].map((part) => [part.id, part.outerHTML]);
    }

    /* What a person has done to a part of the page: to be found again by the ids of what it was done to. */
    function remembered(part) {
        const active = part.contains(document.activeElement) ? document.activeElement : null;
        const focused = active?.closest("[id]").id;
        const scrolled = [...part.querySelectorAll("[id]")].filter((each) => each.scrollTop || each.scrollLeft);
        const places = scrolled.map((each) => [each.id, each.scrollLeft, each.scrollTop]);
        const folds = [...part.querySelectorAll("details[id]")].map((each) => [each.id, each.open]);
        return () => {
            for (const [id, open] of folds) {
                const fold = document.getElementById(id);
                if (fold) {
                    fold.open = open;
                }
            }
            for (const [id, left, top] of places) {
                document.getElementById(id)?.scrollTo(left, top);
            }
            if (active) {
                const holder = document.getElementById(focused);
                (active.id ? holder : holder?.querySelector(active.localName))?.focus({ preventScroll: true });
            }
        };
    }

    /* Put the parts that have changed in place of those on the page; `shown` is what the server said last. */
    function update(root, fresh, shown) {
        const before = new Map(shown);
        const wanted = [...fresh.children];
        const there = new Map([...root.children].map((part) => [part.id, part]));
        for (const [id, part] of there) {
            if (!wanted.some((each) => each.id === id)) {
                part.remove();
            }
        }
        let previous = null;
        for (const part of wanted) {
            const old = there.get(part.id);
            const now = old && before.get(part.id) === part.outerHTML ? old : part;
            const restore = old && now !== old ? remembered(old) : () => {};
            if (now !== old) {
                old?.remove();
            }
            // What is moved loses the focus.
            if (now.parentNode !== root || now.previousElementSibling !== previous) {
                root.insertBefore(now, previous ? previous.nextSibling : root.firstChild);
            }
            restore();
            previous = now;
        }
    }

    function watch(root) {
        let shown = parts(root);
        let pause = PAUSE;
        let timer = 0;
        let over = false;

        const stop = () => {
            over = true;
            window.clearTimeout(timer);
        };
        const next = () => {
            window.clearTimeout(timer);
            if (!over && !document.hidden) {
                timer = window.setTimeout(look, pause);
            }
        };

        async function look() {
            const begun = performance.now();
            let answer;
            try {
                answer = await fetch(root.dataset.live, { headers: { "X-Requested-With": "XMLHttpRequest" } });
                if (!answer.ok && answer.status < 500) {
                    return stop();
                }
                const text = answer.ok ? await answer.text() : "";
                const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("stepflows-live");
                if (answer.ok && !fresh) {
                    // The session has ended, and this is the page to log in.
                    return stop();
                }
                if (fresh) {
                    show(fresh);
                }
                // A page that costs the server much is not asked for so often.
                const calm = Math.max(PAUSE, 5 * (performance.now() - begun));
                pause = Math.min(fresh ? calm : 2 * pause, LONGEST_PAUSE);
            } catch {
                pause = Math.min(2 * pause, LONGEST_PAUSE);
            }
            next();
        }

        function show(fresh) {
            if (over) {
                return;
            }
            const news = parts(fresh);
            const { said, live } = fresh.dataset;
            update(root, fresh, shown);
            shown = news;
            if (said !== root.dataset.said) {
                root.dataset.said = said;
                document.getElementById("stepflows-said").textContent = said;
            }
            if (!live) {
                stop();
            }
        }

        document.addEventListener("visibilitychange", next);
        // Whoever leaves by a button is told on the next page, and this one must not be in the way.
        document.addEventListener("submit", stop);
        next();
    }

    document.addEventListener("DOMContentLoaded", () => {
        const root = document.getElementById("stepflows-live");
        if (root?.dataset.live) {
            watch(root);
        }
    });
}
