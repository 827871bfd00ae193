// The seconds that a person spent with a task: while the page is seen and the person is there.
//
// The wall clock may jump and a laptop may sleep: only short steps of the steady clock count.

const LONGEST_STEP = 2000;
const IDLE_AFTER = 60_000;

/** A clock that runs while the page is used. */
export class Clock {
  constructor() {
    this.milliseconds = 0;
    this.last = performance.now();
    this.active = this.last;
    const alive = () => { this.active = performance.now(); };
    for (const event of ["pointermove", "pointerdown", "keydown", "wheel", "scroll", "touchmove"]) {
      addEventListener(event, alive, { passive: true, capture: true });
    }
    setInterval(() => this.tick(), 500);
  }

  tick() {
    const now = performance.now();
    const step = now - this.last;
    this.last = now;
    if (step < LONGEST_STEP && !document.hidden && now - this.active < IDLE_AFTER) this.milliseconds += step;
  }

  /** Begins anew, after the seconds that a draft remembers. */
  restart(seconds = 0) {
    this.milliseconds = seconds * 1000;
    this.last = this.active = performance.now();
  }

  get seconds() {
    this.tick();
    return Math.round(this.milliseconds / 100) / 10;
  }
}
