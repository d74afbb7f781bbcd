// What both components begin with: they hear the iframe through the app's window. Streamlit calls a component again when
// its data or the theme changes, without ending the call before; so each call takes the place of the last on its element.
const APP = location.origin;
const calls = new WeakMap();

function ask(what) {
  // To our own origin only, and nothing secret in it.
  for (let i = 0; i < frames.length; i++) frames[i].postMessage({ source: "presence-app", ask: what }, APP);
}

/** Calls `hear` for each message of this session, beginning with the last ones; the AbortController returned ends it. */
function listen(element, session, hear) {
  calls.get(element)?.abort();
  const life = new AbortController();
  calls.set(element, life);
  const receive = ({ origin, data }) => {
    if (origin === APP && data?.source === "presence" && data.session === session) hear(data);
  };
  addEventListener("message", receive, { signal: life.signal });
  ask("state");
  return life;
}
