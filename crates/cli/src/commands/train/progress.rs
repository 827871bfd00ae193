//! What a training says while it runs.

use super::super::attributes;
use super::data::Data;
use super::{Global, note};
use crate::display::Progress;
use crate::interrupt;
use kudos::train::{Event, Finished, Opened, StepMetrics, Trainer, preferred_pairs, truncated_share};
use std::ops::ControlFlow;

/// What will be trained on, and for how long.
pub(super) fn announce(trainer: &Trainer, data: &Data, global: &Global) {
    let (settings, examples) = (trainer.settings(), trainer.examples());
    let pairs = preferred_pairs(examples);
    let visits = settings.batch_size * settings.accumulate;
    let responses: usize = examples.iter().map(|e| e.sequences.len()).sum();
    if let Some(rated) = &settings.attributes {
        note(global, &attributes::describe(rated));
    }
    let head = match trainer.opened {
        _ if !settings.new_head => "the base's head".into(),
        Opened::HeadAndLastLayer { kept } if settings.renew_layers == 0 => {
            format!("a new head, above the first {kept} of the base's layers and a layer that averages all tokens")
        }
        Opened::LowerLayers { kept, of } if kept < of => {
            format!("a new head, above the first {kept} of the base's {of} layers")
        }
        _ => "a new head".into(),
    };
    if let Some(lora) = &settings.lora {
        let (trained, all) = (trainer.model.parameters.trained().len(), trainer.model.parameters.count());
        note(global, &format!("adapters of rank {} and the head: {trained} of {all} values are trained", lora.rank));
    }
    note(
        global,
        &format!(
            "training on {pairs} pairs of {responses} responses in {} groups; {} groups held out\n{head}\n{} steps of {visits} group{}, {}, {} threads",
            examples.len(),
            data.eval.len(),
            settings.max_steps,
            if visits == 1 { "" } else { "s" },
            settings.precision,
            kernels::parallel::threads(),
        ),
    );
    trainer.memory.iter().for_each(|plan| note(global, &format!("memory: {plan}")));
    let cut = truncated_share(examples);
    if cut > 0.0 {
        note(global, &format!("{:.1} % of the responses are cut to the token limit", 100.0 * cut));
    }
}

/// Runs the loop with a progress display.
pub(super) fn watch(trainer: &mut Trainer, global: &Global) -> anyhow::Result<Finished> {
    let mut progress = Progress::new(Some(trainer.settings().max_steps), "steps", global.quiet);
    progress.skip(trainer.steps_done());
    let mut smooth = Smooth::default();
    let finished = trainer.run(&mut |event| match event {
        Event::Head(head, evaluation) => {
            let accuracy = evaluation.and_then(|e| e.eval_accuracy).map_or("–".into(), |a| format!("{a:.3}"));
            progress
                .say(&format!("the head alone: held-out accuracy {accuracy}, cross-validated loss {:.4}", head.loss));
            ControlFlow::Continue(())
        }
        Event::Step(metrics) => {
            smooth.add(metrics);
            progress.set(metrics.step, &smooth.text());
            interrupt::flow()
        }
        Event::Evaluated(evaluation) => {
            let accuracy = evaluation.eval_accuracy.map_or("–".into(), |a| format!("{a:.3}"));
            progress.say(&format!(
                "step {}: held-out accuracy {accuracy}, loss {:.4}",
                evaluation.step, evaluation.eval_loss
            ));
            ControlFlow::Continue(())
        }
    });
    progress.finish();
    Ok(finished?)
}

/// Exponential averages for the display: single steps of a few groups jump too much to read.
#[derive(Default)]
pub(crate) struct Smooth {
    weight: f64,
    loss: f64,
    accuracy: f64,
    tokens: f64,
    seconds: f64,
}

impl Smooth {
    pub fn add(&mut self, step: &StepMetrics) {
        const KEEP: f64 = 0.9;
        let mix = |old: f64, new: f64| KEEP * old + (1.0 - KEEP) * new;
        self.weight = mix(self.weight, 1.0);
        self.loss = mix(self.loss, step.loss);
        self.accuracy = mix(self.accuracy, step.accuracy.unwrap_or(0.5));
        self.tokens = mix(self.tokens, step.tokens as f64);
        self.seconds = mix(self.seconds, step.seconds);
    }

    pub fn text(&self) -> String {
        let (loss, accuracy) = (self.loss / self.weight, self.accuracy / self.weight);
        format!("loss {loss:.4}  accuracy {accuracy:.3}  {:.0} tokens/s", self.tokens / self.seconds.max(1e-9))
    }
}
