//! Responses that a judge's chat template refuses: located, counted and left out, so that the others go on.

use super::{Global, train::note};
use anyhow::bail;
use kudos::data::{DataError, Group, ProblemKind, RowProblem};
use kudos::models::Input;
use kudos::text::{Encoder, Rendering, TextError};

/// Groups whose texts are encoded at a time.
const WINDOW: usize = 128;

/// What the encoders take of some groups.
pub struct Taken {
    /// For each group, the responses that all encoders take.
    pub responses: Vec<Vec<usize>>,
    problems: Vec<RowProblem>,
}

impl Taken {
    /// Finds what is refused. Only a chat template refuses texts.
    pub fn of(groups: &[Group], encoders: &[&Encoder]) -> anyhow::Result<Self> {
        let all = groups.iter().map(|group| (0..group.responses.len()).collect()).collect();
        let mut taken = Self { responses: all, problems: Vec::new() };
        for encoder in encoders.iter().filter(|encoder| encoder.settings().render == Rendering::Chat) {
            for (w, window) in groups.chunks(WINDOW).enumerate() {
                taken.ask(window, w * WINDOW, encoder)?;
            }
        }
        taken.problems.dedup_by(|a, b| a.location == b.location);
        Ok(taken)
    }

    /// Asks one encoder about groups from place `first` on.
    fn ask(&mut self, groups: &[Group], first: usize, encoder: &Encoder) -> Result<(), TextError> {
        let inputs: Vec<Input> =
            groups.iter().flat_map(|g| g.responses.iter().map(|r| (g.prompt.as_ref(), &r.content))).collect();
        let mut encoded = encoder.encode_each(&inputs).into_iter();
        for (g, group) in groups.iter().enumerate() {
            for (r, (response, encoded)) in group.responses.iter().zip(encoded.by_ref()).enumerate() {
                if let Err(error) = encoded {
                    self.problems.push(RowProblem { location: response.location.clone(), kind: refusal(error)? });
                    self.responses[first + g].retain(|kept| *kept != r);
                }
            }
        }
        Ok(())
    }

    /// States what is refused, or the first few of much; an error with `strict`, or where nothing is left.
    pub fn report(&self, strict: bool, global: &Global) -> anyhow::Result<()> {
        const SHOWN: usize = 5;
        let Some(first) = self.problems.first() else { return Ok(()) };
        if strict {
            return Err(DataError::Row(first.clone()).into());
        }
        self.problems.iter().take(SHOWN).for_each(|problem| note(global, &format!("not used: {problem}")));
        if self.problems.len() > SHOWN {
            note(global, &format!("not used: {} more rows; `kudos check` lists them all", self.problems.len() - SHOWN));
        }
        match self.responses.iter().all(Vec::is_empty) {
            true => bail!("no response is left: the judge's tokenizer refuses all of them; the first: {first}"),
            false => Ok(()),
        }
    }

    /// The groups without what is refused; those of which nothing is left stay away.
    pub fn parts(&self, groups: Vec<Group>) -> Vec<Group> {
        let part = |(group, taken): (Group, &Vec<usize>)| match taken.len() {
            0 => None,
            all if all == group.responses.len() => Some(group),
            _ => Some(group.part(taken, |_| true)),
        };
        groups.into_iter().zip(&self.responses).filter_map(part).collect()
    }
}

/// The problem of a row whose text cannot be encoded.
///
/// # Errors
/// An error that is not about this text alone.
pub fn refusal(error: TextError) -> Result<ProblemKind, TextError> {
    if error.is_about_the_text() { Ok(ProblemKind::Refused { reason: error.to_string() }) } else { Err(error) }
}

/// The groups without the responses that one of the encoders refuses. Each is stated.
///
/// # Errors
/// With `strict`, the first refusal; and where nothing is left.
pub fn without_refused(
    groups: Vec<Group>,
    encoders: &[&Encoder],
    strict: bool,
    global: &Global,
) -> anyhow::Result<Vec<Group>> {
    let taken = Taken::of(&groups, encoders)?;
    taken.report(strict, global)?;
    Ok(taken.parts(groups))
}
