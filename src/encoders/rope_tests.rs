//! Every kind of rotary scaling against the numbers of transformers, and what is refused.

use super::*;
use serde_json::json;

fn config(value: &Value) -> Json {
    Json::parse("config.json".into(), value.to_string().as_bytes()).expect("an object")
}

/// The rotation of a model with heads of 8 dimensions and 64 positions.
fn rope(value: Value) -> Result<Rope, LoadError> {
    read(&config(&value), &Turn { dim: 8, theta: 10_000., max_tokens: 64 })
}

/// One kind, its parameters, a text's length, and what the reference turns by there.
type Case = (&'static str, Value, usize, [f64; 4], f64);

/// What this prints with transformers 5.24, `n` being the length:
/// `ROPE_INIT_FUNCTIONS[kind](LlamaConfig(hidden_size=16, num_attention_heads=2, max_position_embeddings=64, rope_parameters=parameters), "cpu", seq_len=n)`
/// where `parameters` are those below with `rope_type`, and a `rope_theta` of 10000 unless they have one.
fn cases() -> Vec<Case> {
    let yarn = [1., 0.025, 0.0025, 0.00025];
    let short = [1., 0.0909090936, 0.00833333284, 0.00076923077];
    let factors = json!({"short_factor": [1., 1.1, 1.2, 1.3], "long_factor": [1.5, 2., 3., 4.], "original_max_position_embeddings": 16});
    let with = |more: Value| {
        let mut all = factors.clone();
        all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        all
    };
    vec![
        ("linear", json!({"factor": 4.}), 1, [0.25, 0.025, 0.0025, 0.00025], 1.),
        ("dynamic", json!({"factor": 2.}), 64, [1., 0.1, 0.01, 0.001], 1.),
        ("dynamic", json!({"factor": 2.}), 65, [1., 0.0989795253, 0.00979694538, 0.000969696965], 1.),
        ("dynamic", json!({"factor": 2.}), 200, [1., 0.0575369596, 0.00331050158, 0.000190476188], 1.),
        ("yarn", json!({"factor": 4., "original_max_position_embeddings": 16}), 1, yarn, 1.138629436111989),
        (
            "yarn",
            json!({"rope_theta": 100., "factor": 4., "original_max_position_embeddings": 16, "truncate": false, "beta_fast": 2., "beta_slow": 0.25}),
            1,
            [1., 0.212468684, 0.0256643984, 0.00790569466],
            1.138629436111989,
        ),
        ("yarn", json!({"factor": 4., "original_max_position_embeddings": 16, "mscale": 0.7, "mscale_all_dim": 0.3}), 1, yarn, 1.0532376815143234),
        ("yarn", json!({"factor": 4., "original_max_position_embeddings": 16, "attention_factor": 1.25}), 1, yarn, 1.25),
        ("longrope", factors.clone(), 16, short, 1.224744871391589),
        ("longrope", factors.clone(), 17, [0.666666687, 0.0500000007, 0.00333333341, 0.000250000012], 1.224744871391589),
        ("longrope", with(json!({"factor": 8.})), 16, short, 1.3228756555322954),
        ("longrope", with(json!({"attention_factor": 1.5})), 16, short, 1.5),
        (
            "llama3",
            json!({"rope_theta": 100., "factor": 8., "low_freq_factor": 1., "high_freq_factor": 4., "original_max_position_embeddings": 32}),
            1,
            [1., 0.0958399773, 0.0125000002, 0.00395284733],
            1.,
        ),
    ]
}

#[test]
fn every_kind_turns_as_the_reference_does() {
    for (kind, mut parameters, tokens, want, magnitude) in cases() {
        // As since transformers 5, and as before.
        for (field, name) in [("rope_parameters", "rope_type"), ("rope_scaling", "type")] {
            let map = parameters.as_object_mut().expect("an object");
            map.remove("rope_type");
            map.insert(name.into(), json!(kind));
            let rope = rope(json!({field: parameters})).expect("understood");
            let got = rope.frequencies(tokens);
            for (got, want) in got.iter().zip(want) {
                assert!((f64::from(*got) - want).abs() <= 2e-7 * want, "{parameters} at {tokens}: {got} for {want}");
            }
            assert_eq!((got.len(), rope.dim, rope.pairing), (4, 8, Pairing::Halves));
            assert!((rope.magnitude - magnitude).abs() < 1e-12, "{parameters}: {}", rope.magnitude);
        }
    }
}

#[test]
fn theta_is_read_from_where_it_stands() {
    let turned = |value| rope(value).expect("understood").frequencies(1);
    let plain = |theta| Rope::plain(8, theta);
    assert_eq!(turned(json!({})), plain(10_000.));
    assert_eq!(turned(json!({"rope_theta": 50.})), plain(50.));
    assert_eq!(turned(json!({"rope_parameters": {"rope_theta": 60., "rope_type": "default"}, "rope_theta": 50.})), plain(60.));
    assert_eq!(turned(json!({"rope_parameters": null, "rope_scaling": null, "rope_theta": 50.})), plain(50.));
}

#[test]
fn kinds_of_layers_have_their_own() {
    let kinds = json!({"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2., "rope_theta": 70.}, "other": null}});
    let turn = Turn { dim: 8, theta: 30., max_tokens: 64 };
    let of = |kind| of_kind(&config(&kinds), kind, &turn).expect("understood").map(|rope| rope.frequencies(1));
    assert_eq!(of("full_attention"), Some(Rope::plain(8, 70.).iter().map(|frequency| frequency / 2.).collect()));
    // Named nowhere, or as null, beside one that is: the page's own.
    assert_eq!((of("sliding_attention"), of("other")), (Some(Rope::plain(8, 30.)), Some(Rope::plain(8, 30.))));
    let flat = config(&json!({"rope_parameters": {"rope_type": "default"}}));
    assert!(of_kind(&flat, "full_attention", &turn).expect("understood").is_none());
}

#[test]
fn what_is_not_understood_is_refused_by_its_name() {
    let set = |field: &str, value: Value| {
        let mut yarn = json!({"rope_type": "yarn", "factor": 4., "original_max_position_embeddings": 16});
        yarn[field] = value;
        json!({"rope_parameters": yarn})
    };
    for (value, named) in [
        (set("rope_type", json!("proportional")), "`rope_type`"),
        (set("factor", Value::Null), "`factor`"),
        (set("factor", json!(0.5)), "`factor`"),
        (set("rope_theta", json!(0.)), "`rope_theta`"),
        (set("gamma", json!(1.)), "`gamma`"),
        (set("original_max_position_embeddings", json!(0)), "`original_max_position_embeddings`"),
        (set("partial_rotary_factor", json!(0.5)), "`partial_rotary_factor`"),
        (json!({"partial_rotary_factor": 0.5}), "`partial_rotary_factor`"),
        (json!({"rope_theta": -1.}), "`rope_theta`"),
        // Releases of transformers differ in what they make of these.
        (json!({"rope_scaling": {"type": "dynamic", "factor": 2., "original_max_position_embeddings": 16}}), "`original_max_position_embeddings`"),
        (
            json!({"rope_scaling": set("factor", json!(4.))["rope_parameters"], "original_max_position_embeddings": 32}),
            "`original_max_position_embeddings`",
        ),
        (json!({"rope_scaling": {"type": "longrope", "short_factor": [1., 1., 1.], "long_factor": [1., 1., 1., 1.]}}), "`short_factor`"),
        (json!({"rope_scaling": {"type": "longrope", "short_factor": [1., 1., 1., 1.]}}), "`long_factor`"),
        (json!({"rope_scaling": {"type": "llama3", "factor": 8., "low_freq_factor": 4., "high_freq_factor": 4.}}), "`high_freq_factor`"),
        (json!({"rope_scaling": {"type": "llama3", "factor": 8., "high_freq_factor": 4.}}), "`low_freq_factor`"),
        // One kind of layer alone, where a page has only one.
        (json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}), "`full_attention`"),
    ] {
        let message = rope(value.clone()).expect_err(named).to_string();
        assert!(message.starts_with("config.json") && message.contains(named), "{value}: {message}");
    }
    let odd = read(&config(&json!({})), &Turn { dim: 7, theta: 10_000., max_tokens: 64 }).expect_err("odd");
    assert!(odd.to_string().contains("7 dimensions"), "{odd}");
    let small = json!({"rope_scaling": {"type": "dynamic", "factor": 2.}});
    assert!(read(&config(&small), &Turn { dim: 2, theta: 10_000., max_tokens: 64 }).is_err());
}
