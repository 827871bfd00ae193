//! `adapter_config.json`, read strictly: what changes the adapter's product and is not done here is refused by name.

use super::pattern::{Held, Names, Whole, layer_of};
use crate::models::config::{ConfigError, Fields, read_object};
use serde_json::{Map, Value};
use std::path::Path;

/// Which biases are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Biases {
    None,
    /// All of the model.
    All,
    /// Those of the adapted modules.
    Adapted,
}

/// What a config says.
#[derive(Clone, Debug)]
pub(super) struct AdapterConfig {
    pub(super) rank: usize,
    alpha: f64,
    rslora: bool,
    ranks: Vec<(Whole, usize)>,
    alphas: Vec<(Whole, f64)>,
    targets: Names,
    excluded: Option<Names>,
    layers: Option<Vec<usize>>,
    layers_patterns: Vec<Whole>,
    /// Modules that are stored whole: those whose names end so.
    pub(super) saved: Vec<String>,
    pub(super) dora: bool,
    pub(super) fan_in_fan_out: bool,
    pub(super) biases: Biases,
    pub(super) lora_bias: bool,
    pub(super) base: String,
    /// Branch, tag or commit of a base that is named as it is published.
    revision: Option<String>,
}

/// Settings that are read below.
const READ: [&str; 19] = [
    "peft_type",
    "task_type",
    "r",
    "lora_alpha",
    "use_rslora",
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "modules_to_save",
    "fan_in_fan_out",
    "bias",
    "lora_bias",
    "init_lora_weights",
    "base_model_name_or_path",
    "lora_dropout",
];

/// Settings that say nothing of a finished adapter: how it came about, and how it was stored.
const WITHOUT_EFFECT: [&str; 11] = [
    "auto_mapping",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "loftq_config",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
];

/// More than any adapter has: beyond it, sizes could overflow.
const LARGEST_RANK: u64 = 1 << 20;

impl AdapterConfig {
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        let json = read_object(path)?;
        Self::check(&Fields { path, json: &json })
    }

    fn check(fields: &Fields) -> Result<Self, ConfigError> {
        check_kind(fields)?;
        let patterns = |field| -> Result<Vec<Whole>, ConfigError> {
            strings(fields, field)?.iter().map(|one| compile(fields, field, one)).collect()
        };
        let targets = names(fields, "target_modules")?;
        let expected = "the adapted modules: a list of names, a regular expression or \"all-linear\"";
        Ok(Self {
            rank: rank(fields, "r", fields.json.get("r"))?,
            alpha: alpha(fields, "lora_alpha", fields.json.get("lora_alpha"))?,
            rslora: flag(fields, "use_rslora")?,
            ranks: by_pattern(fields, "rank_pattern", rank)?,
            alphas: by_pattern(fields, "alpha_pattern", alpha)?,
            targets: targets.ok_or_else(|| fields.error("target_modules", expected))?,
            excluded: names(fields, "exclude_modules")?,
            layers: layers(fields)?,
            layers_patterns: patterns("layers_pattern")?,
            saved: strings(fields, "modules_to_save")?,
            dora: flag(fields, "use_dora")?,
            fan_in_fan_out: flag(fields, "fan_in_fan_out")?,
            biases: biases(fields)?,
            lora_bias: flag(fields, "lora_bias")?,
            base: base(fields)?,
            revision: fields.json.get("revision").and_then(Value::as_str).map(str::to_owned),
        })
    }

    /// The name of a published base, with its revision.
    pub(super) fn published(&self) -> String {
        match &self.revision {
            Some(revision) if !self.base.contains('@') => format!("{}@{revision}", self.base),
            _ => self.base.clone(),
        }
    }

    /// Whether a module is to be adapted, by its name.
    pub(super) fn adapts(&self, module: &str) -> bool {
        if self.excluded.as_ref().is_some_and(|names| names.held(module) != Held::No) {
            return false;
        }
        let held = self.targets.held(module);
        let by_list = matches!(self.targets, Names::Listed(_));
        match (&self.layers, held) {
            (_, Held::No) => false,
            // A whole name in a list stands for itself, in whatever layer it is.
            (Some(layers), Held::End) if by_list => {
                layer_of(module, &self.layers_patterns).is_some_and(|layer| layers.contains(&layer))
            }
            _ => true,
        }
    }

    /// Whether all linear layers are adapted but the output: then names say nothing.
    pub(super) fn adapts_all_linear(&self) -> bool {
        matches!(self.targets, Names::AllLinear)
    }

    /// Whether a tensor belongs to a module that is stored whole.
    pub(super) fn saves(&self, tensor: &str) -> bool {
        let mut modules = tensor.match_indices('.').map(|(at, _)| &tensor[..at]);
        modules.any(|module| self.saved.iter().any(|end| module.ends_with(end.as_str())))
    }

    /// The rank of a module.
    pub(super) fn rank_of(&self, module: &str) -> usize {
        self.ranks.iter().find(|(pattern, _)| pattern.matches(module)).map_or(self.rank, |(_, rank)| *rank)
    }

    /// What the product of a module is multiplied by.
    pub(super) fn scale_of(&self, module: &str) -> f32 {
        let alpha = self.alphas.iter().find(|(pattern, _)| pattern.matches(module)).map_or(self.alpha, |(_, one)| *one);
        let rank = self.rank_of(module) as f64;
        (alpha / if self.rslora { rank.sqrt() } else { rank }) as f32
    }
}

/// Refuses what is no LoRA, or LoRA of a kind whose product is another one.
fn check_kind(fields: &Fields) -> Result<(), ConfigError> {
    let text = |field: &str| fields.json.get(field).and_then(Value::as_str);
    if text("peft_type") != Some("LORA") {
        return Err(fields.error("peft_type", "\"LORA\", the one kind of adapter that is known"));
    }
    let task = fields.json.get("task_type").filter(|task| !task.is_null());
    if task.is_some() && !matches!(text("task_type"), Some("SEQ_CLS" | "CAUSAL_LM")) {
        return Err(fields.error("task_type", "\"SEQ_CLS\" or null"));
    }
    let sound = |start: &Value| match start {
        Value::Null | Value::Bool(_) => true,
        Value::String(start) => matches!(start.as_str(), "gaussian" | "eva" | "orthogonal"),
        _ => false,
    };
    if fields.json.get("init_lora_weights").is_some_and(|start| !sound(start)) {
        let expected = "true or \"gaussian\": with others the base is changed too; save the adapter with \
                        path_initial_model_for_weight_conversion";
        return Err(fields.error("init_lora_weights", expected));
    }
    let known = |key: &str| READ.contains(&key) || WITHOUT_EFFECT.contains(&key);
    match fields.json.iter().find(|(key, value)| !known(key) && !is_empty(value)) {
        None => Ok(()),
        Some((key, _)) => Err(fields.error(key, "nothing: Kudos does not do what it asks for")),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        _ => false,
    }
}

fn flag(fields: &Fields, field: &str) -> Result<bool, ConfigError> {
    match fields.json.get(field) {
        None | Some(Value::Null) => Ok(false),
        Some(value) => value.as_bool().ok_or_else(|| fields.error(field, "true or false")),
    }
}

fn rank(fields: &Fields, field: &str, value: Option<&Value>) -> Result<usize, ConfigError> {
    let rank = value.and_then(Value::as_u64).filter(|rank| (1..=LARGEST_RANK).contains(rank));
    rank.map(|rank| rank as usize).ok_or_else(|| fields.error(field, "a rank of 1 or more"))
}

fn alpha(fields: &Fields, field: &str, value: Option<&Value>) -> Result<f64, ConfigError> {
    let alpha = value.and_then(Value::as_f64).filter(|alpha| alpha.abs() < 1e9);
    alpha.ok_or_else(|| fields.error(field, "a number"))
}

/// A value for each of some patterns, in their order.
fn by_pattern<T>(
    fields: &Fields,
    field: &str,
    read: impl Fn(&Fields, &str, Option<&Value>) -> Result<T, ConfigError>,
) -> Result<Vec<(Whole, T)>, ConfigError> {
    let none = Map::new();
    let patterns = match fields.json.get(field) {
        None | Some(Value::Null) => &none,
        Some(value) => value.as_object().ok_or_else(|| fields.error(field, "an object"))?,
    };
    let one = |(pattern, value): (&String, &Value)| {
        let whole = Whole::ending(pattern).map_err(|expected| fields.error(field, expected))?;
        Ok((whole, read(fields, field, Some(value))?))
    };
    patterns.iter().map(one).collect()
}

fn compile(fields: &Fields, field: &str, expression: &str) -> Result<Whole, ConfigError> {
    Whole::new(expression).map_err(|expected| fields.error(field, expected))
}

fn names(fields: &Fields, field: &str) -> Result<Option<Names>, ConfigError> {
    match fields.json.get(field) {
        Some(Value::String(all)) if field == "target_modules" && all == "all-linear" => Ok(Some(Names::AllLinear)),
        Some(Value::String(expression)) => compile(fields, field, expression).map(Names::Matching).map(Some),
        value if value.is_none_or(is_empty) => Ok(None),
        _ => strings(fields, field).map(Names::Listed).map(Some),
    }
}

/// Names, one or a list of them.
fn strings(fields: &Fields, field: &str) -> Result<Vec<String>, ConfigError> {
    let wrong = || fields.error(field, "a list of names");
    match fields.json.get(field) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(all)) => {
            let name = |one: &Value| one.as_str().filter(|name| !name.is_empty()).map(str::to_owned);
            all.iter().map(|one| name(one).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}

fn layers(fields: &Fields) -> Result<Option<Vec<usize>>, ConfigError> {
    let field = "layers_to_transform";
    let layer = |value: &Value| {
        let layer = value.as_u64().and_then(|layer| usize::try_from(layer).ok());
        layer.ok_or_else(|| fields.error(field, "numbers of layers"))
    };
    match fields.json.get(field) {
        value if value.is_none_or(is_empty) => Ok(None),
        Some(Value::Array(all)) => all.iter().map(layer).collect::<Result<_, _>>().map(Some),
        Some(one) => Ok(Some(vec![layer(one)?])),
        None => Ok(None),
    }
}

fn biases(fields: &Fields) -> Result<Biases, ConfigError> {
    match fields.json.get("bias").map(Value::as_str) {
        None | Some(Some("none")) => Ok(Biases::None),
        Some(Some("all")) => Ok(Biases::All),
        Some(Some("lora_only")) => Ok(Biases::Adapted),
        _ => Err(fields.error("bias", "\"none\", \"all\" or \"lora_only\"")),
    }
}

fn base(fields: &Fields) -> Result<String, ConfigError> {
    match fields.json.get("base_model_name_or_path") {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(base)) => Ok(base.clone()),
        Some(_) => Err(fields.error("base_model_name_or_path", "a name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(changed: Value) -> Result<AdapterConfig, String> {
        let mut json =
            json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "a.layers.1.v"]});
        let json = json.as_object_mut().unwrap();
        json.extend(changed.as_object().unwrap().clone());
        AdapterConfig::check(&Fields { path: Path::new("c.json"), json }).map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_held_as_peft_holds_them() {
        let config = read(json!({"layers_to_transform": 0, "exclude_modules": ["layers.0.b.q_proj"]})).unwrap();
        assert!(config.adapts("a.layers.0.q_proj"));
        assert!(!config.adapts("a.layers.1.q_proj"), "another layer");
        assert!(config.adapts("a.layers.1.v"), "a whole name stands for itself");
        assert!(!config.adapts("a.layers.0.b.q_proj"), "excluded");
        assert!(!config.adapts("a.layers.0.xq_proj"));
        let config = read(json!({"target_modules": r".*\.[01]\.q", "layers_to_transform": [0]})).unwrap();
        assert!(config.adapts("a.layers.1.q"), "layers say nothing beside an expression");
    }

    #[test]
    fn scales_follow_the_patterns() {
        let config = read(json!({"rank_pattern": {"q_proj": 16}, "alpha_pattern": {r"l\.\d\.q_proj": 32}})).unwrap();
        assert_eq!((config.rank_of("l.0.q_proj"), config.scale_of("l.0.q_proj")), (16, 2.0));
        assert_eq!((config.rank_of("l.0.k_proj"), config.scale_of("l.0.k_proj")), (4, 2.0));
        let config = read(json!({"use_rslora": true})).unwrap();
        assert_eq!(config.scale_of("a"), 4.0);
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (changed, said) in [
            (json!({"peft_type": "IA3"}), "`peft_type` is \"IA3\""),
            (json!({"task_type": "TOKEN_CLS"}), "task_type"),
            (json!({"r": 0}), "`r` is 0"),
            (json!({"r": 1u64 << 40}), "`r`"),
            (json!({"lora_alpha": null}), "lora_alpha"),
            (json!({"bias": "some"}), "bias"),
            (json!({"init_lora_weights": "pissa"}), "init_lora_weights"),
            (json!({"use_qalora": true}), "use_qalora"),
            (json!({"a_setting_of_tomorrow": 3}), "a_setting_of_tomorrow"),
            (json!({"target_modules": null}), "target_modules"),
            (json!({"target_modules": [3]}), "target_modules"),
            (json!({"target_modules": "(?=x)q"}), "look-around"),
            (json!({"rank_pattern": {"(": 3}}), "rank_pattern"),
            (json!({"rank_pattern": {"a": 0}}), "rank_pattern"),
            (json!({"layers_to_transform": [-1]}), "layers_to_transform"),
        ] {
            let error = read(changed.clone()).unwrap_err();
            assert!(error.contains(said), "{changed}: {error}");
        }
        assert!(read(json!({"a_setting_of_tomorrow": null, "another": {}})).is_ok());
    }
}
