//! What the parser takes, refuses and names, case by case.

use super::*;

const LIMITS: Limits = Limits { max_texts: 4 };

fn ok(body: &str) -> EmbedRequest {
    parse(body.as_bytes(), LIMITS, |_| false).unwrap_or_else(|fault| panic!("{body}: {fault:?}"))
}

fn fields(body: impl AsRef<[u8]>) -> Vec<String> {
    match parse(body.as_ref(), LIMITS, |_| false) {
        Err(Fault::Validation(details)) => details.into_iter().map(|detail| detail.field.into_owned()).collect(),
        other => panic!("{}: {other:?}", String::from_utf8_lossy(body.as_ref())),
    }
}

fn with(field: &str, value: &str) -> String {
    format!(r#"{{"model":"m","input":"a","{field}":{value}}}"#)
}

#[test]
fn a_string_is_one_text() {
    let request = ok(r#"{"model":"m","input":"a"}"#);
    let expected = EmbedRequest {
        model: "m".into(),
        texts: vec!["a".into()],
        dimensions: None,
        encoding: Encoding::Float,
        truncate: None,
        input_type: None,
        expect_space: None,
    };
    assert_eq!(request, expected);
}

#[test]
fn every_field_is_read() {
    let request = ok(r#"{"user":{"x":[1]},"input":["a","b"],"model":"o/m","dimensions":64,"encoding_format":"base64","truncate":"start",
        "input_type":"query","expect_space":"0123456789abcdef"}"#);
    assert_eq!(request.expect_space.as_deref(), Some("0123456789abcdef"));
    assert_eq!((request.model.as_str(), request.texts.len(), request.dimensions), ("o/m", 2, Some(64)));
    assert_eq!((request.encoding, request.truncate, request.input_type.as_deref()), (Encoding::Base64, Some(Truncate::Start), Some("query")));
}

#[test]
fn numbers_are_taken_as_leniently_as_pydantic_takes_them() {
    for (value, expected) in [
        ("512", Some(512)),
        ("\"512\"", Some(512)),
        ("\" 512 \"", Some(512)),
        ("\"512.0\"", Some(512)),
        ("512.0", Some(512)),
        ("5.12e2", Some(512)),
        ("null", None),
        ("99999999999999999999999", Some(usize::MAX)),
    ] {
        assert_eq!(ok(&with("dimensions", value)).dimensions, expected, "{value}");
    }
    for value in ["512.5", "\"abc\"", "\"\"", "\"512.5\"", "\"5.\"", "true", "[512]", "{}", "0", "-1", "\"0\"", "-1e300"] {
        assert_eq!(fields(with("dimensions", value)), ["dimensions"], "{value}");
    }
}

#[test]
fn bodies_that_are_no_object_are_faults_of_the_body() {
    let bodies = [
        "",
        " \n",
        "\u{feff}",
        "{",
        r#"{"model":"m","input":"a""#,
        r#"{"model":"m","input":"a"} x"#,
        r#"{"model":"m","input":"a",}"#,
        "[]",
        "[{}]",
        "\"text\"",
        "3",
        "null",
        "NaN",
        r#"{model:"m"}"#,
        r#"{"model":"m","input":"\ud800"}"#,
        r#"{"model":"m","input":["a","\udc00 b"]}"#,
        r#"{"model":"m","input":"a","dimensions":1e999}"#,
        "{\"model\":\"m\",\"input\":\"a\nb\"}",
    ];
    for body in bodies {
        assert_eq!(fields(body), ["body"], "{body}");
    }
    assert_eq!(fields(b"{\"model\":\"m\",\"input\":\"\xff\"}"), ["body"]);
    assert_eq!(fields(b"{\"model\":\"m\",\"input\":\"a\",\"unknown\":\"\xc3\x28\"}"), ["body"]);
}

#[test]
fn a_byte_order_mark_and_any_escaped_character_are_accepted() {
    assert_eq!(ok("\u{feff}{\"model\":\"m\",\"input\":\"a\"}").texts, ["a"]);
    assert_eq!(ok(r#"{"model":"m","input":"a\u0000\u001f\ud83d\ude00"}"#).texts, ["a\0\u{1f}\u{1f600}"]);
    assert_eq!(ok(r#"{"m\u006fdel":"m","input":" "}"#).texts, [" "]);
}

#[test]
fn all_faults_of_a_pass_are_reported_together_and_in_order() {
    let body = r#"{"truncate":"middle","input":["a",3,""],"dimensions":true,"encoding_format":"hex","input_type":1}"#;
    assert_eq!(fields(body), ["model", "input.1", "input.2", "dimensions", "encoding_format", "truncate", "input_type"]);
    assert_eq!(fields("{}"), ["model", "input"]);
}

#[test]
fn inputs_of_another_type_are_named() {
    for value in ["null", "3", "-3", "1.5", "true", r#"{"a":"b"}"#, "[]", r#""""#, "[1,2]", "[[1],[2,3]]", r#"[["a"]]"#, "[1.5]"] {
        assert_eq!(fields(format!(r#"{{"model":"m","input":{value}}}"#)), ["input"], "{value}");
    }
    for value in [r#"["a",3]"#, r#"["a",null]"#, r#"["a",["b"]]"#, r#"["a",""]"#, r#"["a",{"text":"b"}]"#] {
        assert_eq!(fields(format!(r#"{{"model":"m","input":{value}}}"#)), ["input.1"], "{value}");
    }
    assert_eq!(fields(r#"{"model":"m","input":[null]}"#), ["input.0"]);
    assert_eq!(fields(r#"{"model":"m","input":[1,[2]]}"#), ["input.0", "input.1"]);
}

#[test]
fn empty_texts_are_the_models_own_matter() {
    let body = br#"{"model":"m","input":["","a"]}"#;
    assert_eq!(parse(body, LIMITS, |model| model == "m").unwrap().texts, ["", "a"]);
    assert_eq!(parse(br#"{"model":"m","input":""}"#, LIMITS, |_| true).unwrap().texts, [""]);
    assert_eq!(fields(body), ["input.0"]);
    assert_eq!(fields(r#"{"model":"","input":"a"}"#), ["model"]);
}

#[test]
fn of_a_field_given_twice_the_last_counts() {
    let request = ok(r#"{"model":3,"input":["a",1],"model":"m","input":"b"}"#);
    assert_eq!((request.model.as_str(), request.texts), ("m", vec!["b".to_owned()]));
}

#[test]
fn too_many_texts_are_counted_not_kept() {
    let many = format!(r#"{{"model":"m","input":[{}"a"]}}"#, r#""a","#.repeat(9));
    let Err(Fault::Validation(details)) = parse(many.as_bytes(), LIMITS, |_| false) else { panic!("accepted") };
    assert_eq!(details, [Detail::new("input", "holds 10 texts; at most 4 are taken in one request")]);
    assert_eq!(ok(r#"{"model":"m","input":["a","b","c","d"]}"#).texts.len(), 4);
}

#[test]
fn a_million_faults_make_a_short_answer() {
    let body = format!(r#"{{"model":"m","input":["a"{}]}}"#, r#","",3"#.repeat(500_000));
    let Err(fault) = parse(body.as_bytes(), Limits { max_texts: usize::MAX }, |_| false) else { panic!("accepted") };
    let details = fault.details();
    assert_eq!(details.len(), MAX_DETAILS + 1);
    assert_eq!((details[0].field.as_ref(), details[31].field.as_ref()), ("input.1", "input.32"));
    assert_eq!(details[32].message, "999968 more texts cannot be accepted; only the first 32 are listed");
    assert!(fault.native_body("req_1").len() < 8192);
}

#[test]
fn depth_costs_no_stack() {
    let deep = |open: &str, close: &str| format!("{}0{}", open.repeat(500_000), close.repeat(500_000));
    let nested = deep("[", "]");
    assert_eq!(fields(format!(r#"{{"model":"m","input":{nested}}}"#)), ["input"]);
    assert_eq!(fields(format!(r#"{{"model":"m","input":["a",{nested}]}}"#)), ["input.1"]);
    assert_eq!(fields(format!(r#"{{"model":{nested},"input":"a"}}"#)), ["model"]);
    assert_eq!(fields(&nested), ["body"]);
    assert_eq!(fields("[".repeat(500_000)), ["body"]);
    assert_eq!(ok(&with("unknown", &nested)).texts, ["a"]);
    assert_eq!(fields(format!(r#"{{"model":"m","input":"a","dimensions":{}}}"#, deep("[{\"a\":", "}]"))), ["dimensions"]);
}

fn ids_as_words(ids: &[u32]) -> Result<String, String> {
    if ids.contains(&9) { Err("holds 9".to_owned()) } else { Ok(format!("{ids:?}")) }
}

fn openai(input: &str) -> Result<Vec<String>, Vec<Detail>> {
    let body = format!(r#"{{"model":"m","input":{input}}}"#);
    let arrays = TokenArrays { max_ids: 6, decode: &ids_as_words };
    parse_openai(body.as_bytes(), LIMITS, arrays, |_| false).map(|request| request.texts).map_err(|fault| fault.details().to_vec())
}

#[test]
fn token_arrays_become_texts_where_they_are_taken() {
    assert_eq!(openai("[1,2]").unwrap(), ["[1, 2]"]);
    assert_eq!(openai("[[1,2],[3]]").unwrap(), ["[1, 2]", "[3]"]);
    assert_eq!(openai("[1,2,3,4,5,6]").unwrap(), ["[1, 2, 3, 4, 5, 6]"], "one array may be longer than a list of texts");
    assert_eq!(openai(r#"["a","b"]"#).unwrap(), ["a", "b"]);
    let fields = |input: &str| openai(input).unwrap_err().into_iter().map(|detail| detail.field.into_owned()).collect::<Vec<_>>();
    assert_eq!(fields("[1,9]"), ["input"]);
    assert_eq!(fields("[[1],[9],[-1]]"), ["input.1", "input.2"]);
    assert_eq!(fields(r#"["a",[1]]"#), ["input"]);
    assert_eq!(fields(r#"[1,"a"]"#), ["input.0"]);
    assert_eq!(fields("[[1],[2],[3],[4],[5]]"), ["input"]);
}

#[test]
fn too_many_token_ids_are_counted_not_decoded() {
    let code = |input: &str| openai(input).unwrap_err()[0].code;
    assert_eq!(code("[1,2,3,4,5,6,7]"), Some(Detail::TOKEN_SUM));
    assert_eq!(code("[[1,2,3,4],[5,6,9]]"), Some(Detail::TOKEN_SUM));
    let many = format!("[{}1]", "1,".repeat(1_000_000));
    assert_eq!(openai(&many).unwrap_err()[0].message, "holds 1000001 tokens in all; at most 6 are taken in one request");
    assert_eq!(openai(&format!("[{many},[9]]")).unwrap_err().len(), 1);
}

#[test]
fn the_body_of_a_line_is_read_as_it_would_be_alone() {
    let limits = Limits { max_texts: 4 };
    let alone = |body: &str| super::parse(body.as_bytes(), limits, |_| false);
    let in_line = |body: &str| {
        let line = format!("{{\"custom_id\":\"a\",\"x\":[{{}}],\"body\":{body},\"method\":\"POST\"}}");
        super::parse(Body::OfLine(line.as_bytes()), limits, |_| false)
    };
    let bodies = ["{\"model\":\"m\",\"input\":[\"a\",\"b\"],\"dimensions\":8}", "{\"model\":\"m\",\"input\":[1]}", "[]", "3", "\"x\"", "null", "{}"];
    for body in bodies {
        assert_eq!(in_line(body), alone(body), "{body}");
    }
    // What breaks the JSON breaks it elsewhere there; the field at fault is the same.
    for body in ["{\"model\":\"m\",\"input\":\"\\ud800\"}", "{\"input\":1e999}"] {
        let field = |parsed: Result<EmbedRequest, Fault>| parsed.unwrap_err().details()[0].field.to_string();
        assert_eq!(field(in_line(body)), field(alone(body)), "{body}");
    }
}
