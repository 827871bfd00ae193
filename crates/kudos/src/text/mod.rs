//! Rendering of (prompt, response) to token ids: the one encode function of training, evaluation and scoring.
