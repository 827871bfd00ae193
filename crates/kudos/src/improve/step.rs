//! One step: prompts → responses → scores → advantages → gradients → weights.

use super::learn::{Learnt, Lesson, Objective, Step};
use super::log::{StepMetrics, Writing};
use super::reward::{Judged, advantages, best, judge};
use super::sample::{Response, Sampled, Wanted, sample};
use super::{Algorithm, DEGENERATE_STEPS, Desk, Event, ImproveError, Improver, Watch, lap};
use crate::data::Content;
use crate::random::Stream;
use std::sync::Arc;
use std::time::Instant;

/// How a step ended.
pub(super) enum Outcome {
    /// The policy moved.
    Done(StepMetrics),
    /// The policy is lost, and why. It did not move.
    Collapsed(String),
    /// Whoever watches asked to stop. The policy did not move.
    Stopped,
}

impl Improver {
    /// Does the next step.
    pub(super) fn step(&mut self, watch: &mut Watch) -> Result<Outcome, ImproveError> {
        let (begun, mut clock) = (Instant::now(), Instant::now());
        let places = self.places();
        let prompts: Vec<Arc<[u32]>> = places.iter().map(|place| Arc::clone(&self.train[*place].ids)).collect();
        let groups = match self.draw(&prompts, watch)? {
            Sampled::All(groups) => groups,
            Sampled::Stopped => return Ok(Outcome::Stopped),
            Sampled::NotFinite => return Ok(self.collapsed("the policy's logits are no numbers")),
        };
        let sampling_seconds = lap(&mut clock);
        let contents: Vec<&Content> = places.iter().map(|place| &self.train[*place].content).collect();
        let judged = judge(&self.judges.judge, &mut self.workspace, &contents, &groups);
        let judging_seconds = lap(&mut clock);
        let degenerate = Writing::is_degenerate(&groups);
        self.state.degenerate = degenerate.map_or(0, |_| self.state.degenerate + 1);
        if let Some(why) = degenerate.filter(|_| self.state.degenerate >= DEGENERATE_STEPS) {
            return Ok(self.collapsed(&format!("in {DEGENERATE_STEPS} steps in a row {why}")));
        }
        if let (0, Some(first)) = (judged.all().count(), &judged.failure) {
            let (responses, first) = (groups.iter().map(Vec::len).sum(), first.clone());
            if degenerate.is_none() {
                return Err(ImproveError::Unscored { step: self.state.step + 1, responses, first });
            }
        }
        let mut metrics = match kernels::parallel::inside(|| self.update(&prompts, &groups, &judged)) {
            Ok(metrics) => metrics,
            Err(why) => return Ok(self.collapsed(&why)),
        };
        metrics.learning_seconds = lap(&mut clock);
        (metrics.sampling_seconds, metrics.judging_seconds) = (sampling_seconds, judging_seconds);
        metrics.seconds = begun.elapsed().as_secs_f64();
        self.state.seconds += metrics.seconds;
        Ok(Outcome::Done(metrics))
    }

    fn collapsed(&self, why: &str) -> Outcome {
        Outcome::Collapsed(format!("step {}: {why}", self.state.step + 1))
    }

    /// The places of the step's prompts. Each comes once in an epoch, in an order of its own.
    fn places(&self) -> Vec<usize> {
        let count = self.train.len();
        let epoch = |number: usize| {
            let mut order: Vec<usize> = (0..count).collect();
            Stream::named(self.settings.seed, "prompts").fork(number as u64).shuffle(&mut order);
            order
        };
        let first = self.state.step as usize * self.settings.batch_size;
        (first..first + self.settings.batch_size).map(|visit| epoch(visit / count)[visit % count]).collect()
    }

    fn draw(&mut self, prompts: &[Arc<[u32]>], watch: &mut Watch) -> Result<Sampled, ImproveError> {
        let wanted = Wanted {
            n: self.settings.n,
            most: self.settings.max_new_tokens,
            temperature: self.settings.temperature,
            random: Stream::named(self.settings.seed, "responses").fork(self.state.step),
        };
        // What only learning needs gives its memory to the copy that writes.
        self.desk = Desk::default();
        self.policy.forget();
        self.writer.follow(&self.policy);
        let sampled = sample(&mut self.writer, &self.wording, prompts, &wanted, &mut || watch(Event::Drawing));
        self.writer.forget();
        sampled
    }

    /// Moves the policy; gives the reason where that is not possible.
    fn update(
        &mut self,
        prompts: &[Arc<[u32]>],
        groups: &[Vec<Response>],
        judged: &Judged,
    ) -> Result<StepMetrics, String> {
        let settings = &self.settings;
        let worth: Vec<Vec<f64>> = judged.scores.iter().map(|scores| worth(settings.algorithm, scores)).collect();
        let lessons = lessons(prompts, groups, &worth);
        let objective = Objective { kl: settings.kl, temperature: settings.temperature };
        let learning_rate = settings.learning_rate * settings.schedule.factor(self.state.step, 0, settings.steps);
        let (most, was_far) = (settings.max_kl, self.state.far);
        let refuses = |learnt: &Learnt| refuses(learnt, most, was_far);
        let rate = learning_rate as f32;
        self.policy.pack_for_training(settings.precision);
        let step = Step { gradients: &mut self.gradients, optimizer: &mut self.optimizer, rate, refuses: &refuses };
        let (learnt, norm) = self.desk.step((&mut self.policy, &self.start), &lessons, objective, step)?;
        self.state.far = learnt.kl > most;
        self.state.step += 1;
        let all: Vec<f64> = worth.concat();
        let advantage = all.iter().map(|worth| worth.abs()).sum::<f64>() / all.len().max(1) as f64;
        let metrics = StepMetrics::of(groups, judged, learnt);
        Ok(StepMetrics { step: self.state.step, advantage, grad_norm: norm, learning_rate, ..metrics })
    }
}

/// Why the policy must not move on: it is no number, or too far from the start model for the second time.
fn refuses(learnt: &Learnt, max_kl: f64, was_far: bool) -> Result<(), String> {
    let Learnt { loss, kl, .. } = learnt;
    if !(loss.is_finite() && kl.is_finite()) {
        return Err(format!("the loss is {loss} and the KL divergence {kl}: expected finite numbers"));
    }
    if *kl > max_kl && was_far {
        return Err(format!(
            "the KL divergence from the start model is {kl:.2} nats a token, beyond --max-kl {max_kl}"
        ));
    }
    Ok(())
}

fn worth(algorithm: Algorithm, scores: &[Option<f64>]) -> Vec<f64> {
    match algorithm {
        Algorithm::Rloo => advantages(scores),
        Algorithm::BestOfN => best(scores),
    }
}

/// The responses with what each is worth.
fn lessons(prompts: &[Arc<[u32]>], groups: &[Vec<Response>], worth: &[Vec<f64>]) -> Vec<Lesson> {
    let mut lessons = Vec::new();
    for ((prompt, group), worth) in prompts.iter().zip(groups).zip(worth) {
        let lesson = |(one, weight): (&Response, &f64)| Lesson {
            prompt: Arc::clone(prompt),
            response: one.ids.clone(),
            weight: *weight,
        };
        lessons.extend(group.iter().zip(worth).map(lesson));
    }
    lessons
}
