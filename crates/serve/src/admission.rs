//! What a judge has been measured to do: characters of its texts in a token, and tokens in a second.
//!
//! The first turns the length of a text into tokens before it is tokenised, so that a request can be refused cheaply.
//! The second says after what time a refused request may be sent again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The two rates of a judge, as running averages.
pub(crate) struct Pace {
    /// Characters in a token.
    density: Number,
    /// Tokens in a second; 0 until a batch was computed.
    speed: Number,
    max_length: usize,
}

/// Characters in a token of English, until texts were seen.
const DENSITY: f64 = 4.0;
/// Characters after which a new density counts as much as the old one.
const DENSITY_MEMORY: f64 = 50_000.0;
/// Time of computing after which a new speed counts as much as the old one.
const SPEED_MEMORY: Duration = Duration::from_secs(5);
/// Tokens in a second, until a batch was computed: slow, so that nobody comes back too early.
const SPEED: f64 = 1000.0;
/// Tokens that a tokenizer puts around a text.
const SPECIAL: usize = 3;

impl Pace {
    pub(crate) fn new(max_length: usize) -> Self {
        Pace { density: Number::new(DENSITY), speed: Number::new(0.0), max_length }
    }

    /// Tokens that a text of so many characters will have.
    pub(crate) fn estimate(&self, characters: usize) -> usize {
        let tokens = (characters as f64 / self.density.get()).ceil() as usize;
        (tokens + SPECIAL).min(self.max_length).max(1)
    }

    /// So many characters were so many tokens, before any were cut.
    pub(crate) fn tokenised(&self, characters: usize, tokens: usize) {
        if characters == 0 || tokens == 0 {
            return;
        }
        let weight = characters as f64 / (characters as f64 + DENSITY_MEMORY);
        self.density.approach((characters as f64 / tokens as f64).clamp(0.25, 16.0), weight);
    }

    /// So many tokens took so long, from when they could have been computed.
    pub(crate) fn computed(&self, tokens: usize, time: Duration) {
        let seconds = time.as_secs_f64().max(1e-6);
        let speed = tokens as f64 / seconds;
        match self.speed.get() {
            0.0 => self.speed.set(speed),
            _ => self.speed.approach(speed, seconds / (seconds + SPEED_MEMORY.as_secs_f64())),
        }
    }

    /// Tokens in a second.
    pub(crate) fn speed(&self) -> f64 {
        match self.speed.get() {
            0.0 => SPEED,
            speed => speed,
        }
    }

    /// The time in which so many tokens are worked off.
    pub(crate) fn time_for(&self, tokens: usize) -> Duration {
        Duration::from_secs_f64((tokens as f64 / self.speed().max(1e-3)).min(3600.0))
    }
}

/// A number that threads share. Two changes at once may lose one of them, which an average can bear.
struct Number(AtomicU64);

impl Number {
    fn new(value: f64) -> Self {
        Number(AtomicU64::new(value.to_bits()))
    }

    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    fn approach(&self, value: f64, weight: f64) {
        self.set(self.get() + (value - self.get()) * weight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_estimated_as_they_were() {
        let pace = Pace::new(512);
        assert_eq!([0, 4, 400, 1 << 30].map(|characters| pace.estimate(characters)), [3, 4, 103, 512]);
        (0..100).for_each(|_| pace.tokenised(50_000, 50_000)); // A token a character, as in Chinese.
        assert!((400..=403).contains(&pace.estimate(400)), "{}", pace.estimate(400));
        pace.tokenised(0, 5);
        pace.tokenised(5, 0);
        assert!((400..=403).contains(&pace.estimate(400)));
    }

    #[test]
    fn the_time_to_wait_follows_the_measured_speed() {
        let pace = Pace::new(512);
        assert_eq!(pace.time_for(2000), Duration::from_secs(2), "before anything was measured");
        (0..100).for_each(|_| pace.computed(1000, Duration::from_millis(100)));
        assert_eq!(pace.time_for(20_000).as_secs_f64().round(), 2.0);
        // The judge becomes ten times slower; soon the answer says so.
        (0..30).for_each(|_| pace.computed(1000, Duration::from_secs(1)));
        let seconds = pace.time_for(20_000).as_secs_f64();
        assert!((18.0..=20.5).contains(&seconds), "{seconds}");
        assert!(pace.time_for(usize::MAX) <= Duration::from_secs(3600));
    }
}
