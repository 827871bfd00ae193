//! What the project's two servers share: connections with limits, and who may ask.

mod connections;
pub mod origin;

pub use connections::{Limits, serve};

/// Whether two secrets are the same, in a time that does not tell how much of them is.
pub fn same_secret(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0 && a.len() == b.len()
}

#[cfg(test)]
mod tests {
    use super::same_secret;

    #[test]
    fn secrets() {
        assert!(same_secret(b"abc", b"abc") && same_secret(b"", b""));
        for (given, expected) in [("abc", "abd"), ("ab", "abc"), ("abcd", "abc"), ("", "a")] {
            assert!(!same_secret(given.as_bytes(), expected.as_bytes()), "{given} {expected}");
        }
    }
}
