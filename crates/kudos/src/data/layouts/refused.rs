//! Files that are often at hand and hold no preferences between responses: refused by name.

use super::{Layout, PLAIN, Read};

pub(super) static TABLE: [Layout; 7] = [
    refused(
        "HH red-team transcripts",
        &["transcript", "task_description"],
        "one conversation a row, rated as an attack; the preferences are in harmless-base and helpful-base",
    ),
    refused("PRM800K", &["question", "label", "is_quality_control_question"], "steps, not responses, are rated"),
    refused("stepwise supervision", &["prompt", "completions", "labels"], "steps, not responses, are labelled"),
    refused(
        "Potato annotations",
        &["instance_id", "label_annotations"],
        "the responses are in the file that was annotated: join the two by instance_id",
    ),
    refused(
        "instructions with one output",
        &["instruction", "output", "generator"],
        "outputs of one model; score them with --columns prompt=instruction,response=output",
    ),
    refused(
        "XSTest",
        &["prompt", "completion", "final_label"],
        "one response a prompt; its own score: kudos eval --suite xstest",
    ),
    refused(
        "Google Forms answers",
        &["Timestamp"],
        "a question a column and a person a row: what is ranked cannot be known; write prompt, answer, rank rows",
    ),
];

const fn refused(name: &'static str, columns: &'static [&'static str], why: &'static str) -> Layout {
    Layout { name, columns, read: Read::Refused(why), ..PLAIN }
}
