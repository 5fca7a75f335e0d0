use proptest::prelude::*;
use ruma::CanonicalJsonValue;
use serde_json::{Value, json};

use super::*;

/// The examples of the appendices.
#[test]
fn examples_of_the_specification() {
    let cases = [
        ("{}", "{}"),
        (r#"{ "one": 1, "two": "Two" }"#, r#"{"one":1,"two":"Two"}"#),
        (r#"{ "b": "2", "a": "1" }"#, r#"{"a":"1","b":"2"}"#),
        (r#"{"b":"2","a":"1"}"#, r#"{"a":"1","b":"2"}"#),
        (
            r#"{"auth": {"success": true, "mxid": "@john.doe:example.com", "profile": {"display_name": "John Doe",
               "three_pids": [{"medium": "email", "address": "john.doe@example.org"},
                              {"medium": "msisdn", "address": "123456789"}]}}}"#,
            r#"{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},"success":true}}"#,
        ),
        (r#"{ "a": "日本語" }"#, r#"{"a":"日本語"}"#),
        (r#"{ "本": 2, "日": 1 }"#, r#"{"日":1,"本":2}"#),
        (r#"{ "a": "\u65E5" }"#, r#"{"a":"日"}"#),
        (r#"{ "a": null }"#, r#"{"a":null}"#),
    ];
    for (input, expected) in cases {
        assert_eq!(canonicalize(input.as_bytes()).as_deref(), Ok(expected));
    }
}

#[test]
fn escapes_take_their_shortest_form() {
    let input = r#"["\/","\u000A","\u0000","\u001F","\ud83d\ude00","\"\\","\u007f"]"#;
    let expected = "[\"/\",\"\\n\",\"\\u0000\",\"\\u001f\",\"😀\",\"\\\"\\\\\",\"\u{7f}\"]";
    assert_eq!(canonicalize(input.as_bytes()).as_deref(), Ok(expected));
}

#[test]
fn keys_sort_by_code_point_not_by_their_escapes() {
    let input = r##"{"\\":1,"#":2,"\"":3,"\u0001":4,"":5}"##;
    let expected = r##"{"":5,"\u0001":4,"\"":3,"#":2,"\\":1}"##;
    assert_eq!(canonicalize(input.as_bytes()).as_deref(), Ok(expected));
}

#[test]
fn text_that_is_not_json_is_refused() {
    let cases: &[&[u8]] = &[
        b"",
        b" ",
        b"{",
        b"}",
        b"[1",
        b"[1,]",
        b"{\"a\"}",
        b"{\"a\":}",
        b"{\"a\":1,}",
        b"{a:1}",
        b"{\"a\":1 \"b\":2}",
        b"[1}",
        b"{\"a\":1]",
        b"01",
        b"-",
        b"1.",
        b"1e",
        b".5",
        b"+1",
        b"tru",
        b"nul",
        b"\"a",
        b"\"\\x\"",
        b"\"\\u12\"",
        b"\"\\ud800\"",
        b"\"\\ud800\\u0041\"",
        b"\"\\udc00\"",
        b"\"\n\"",
        b"{} {}",
        b"\"\xff\"",
        b"\xef\xbb\xbf{}",
        b"NaN",
        b"[1]]",
        b"\"\\u+123\"",
    ];
    for case in cases {
        let error = check_json(case).expect_err(&String::from_utf8_lossy(case));
        assert!(error.is_not_json(), "{error}");
    }
}

#[test]
fn numbers_are_checked_only_where_canonical_json_is_due() {
    for float in ["1.0", "1e3", "-0", "0.5", "1E-2", "-0.0"] {
        assert_eq!(check_json(float.as_bytes()), Ok(()), "{float}");
        assert!(
            matches!(check_event_json(float.as_bytes()), Err(JsonError::NotAnInteger { at: 0 })),
            "{float}"
        );
    }
    for big in ["9007199254740992", "-9007199254740992", "123456789012345678901234567890"] {
        assert_eq!(check_json(big.as_bytes()), Ok(()), "{big}");
        assert!(
            matches!(check_event_json(big.as_bytes()), Err(JsonError::IntegerOutOfRange { .. })),
            "{big}"
        );
    }
    for fine in ["9007199254740991", "-9007199254740991", "0", "-1"] {
        assert_eq!(check_event_json(fine.as_bytes()), Ok(()), "{fine}");
    }
}

#[test]
fn duplicate_keys_are_refused_in_any_order_and_spelling() {
    for text in
        [r#"{"a":1,"a":2}"#, r#"{"b":1,"a":2,"b":3}"#, r#"{"a":1,"\u0061":2}"#, r#"[{"x":{"k":1,"k":1}}]"#]
    {
        let error = check_json(text.as_bytes()).unwrap_err();
        assert!(matches!(error, JsonError::DuplicateKey(_)), "{text}: {error}");
        assert!(!error.is_not_json());
    }
    assert_eq!(check_json(br#"[{"a":1},{"a":1},{"b":{"a":1},"a":2}]"#), Ok(()));
}

#[test]
fn nesting_is_bounded_without_recursion() {
    use myelin_core::limits::JSON_DEPTH_MAX;
    let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    assert_eq!(check_json(&nested(JSON_DEPTH_MAX)), Ok(()));
    assert_eq!(check_json(&nested(JSON_DEPTH_MAX + 1)), Err(JsonError::TooDeep { limit: JSON_DEPTH_MAX }));
    assert!(check_json(&vec![b'['; 1_000_000]).is_err());
    assert!(check_json("{\"a\":".repeat(1_000_000).as_bytes()).is_err());
}

#[test]
fn what_a_request_holds_may_be_deep_and_long() {
    let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    assert!(canonicalize_request(&nested(PDU_SIZE_MAX)).is_ok());
    assert!(canonicalize_request(&nested(PDU_SIZE_MAX + 1)).is_err());
    let digits = "9".repeat(4_000);
    assert_eq!(canonicalize_request(digits.as_bytes()).as_deref(), Ok(&*digits));
    // Sorted already, and not: that is done again at each level.
    let deep = |open: &str, close: &str| [open.repeat(2_000), "1".to_owned(), close.repeat(2_000)].concat();
    let sorted = deep(r#"{"a":"#, r#","b":1}"#);
    assert_eq!(canonicalize_request(sorted.as_bytes()).as_deref(), Ok(&*sorted));
    let unsorted = deep(r#"{"b":"#, r#","a":1}"#);
    assert!(matches!(canonicalize_request(unsorted.as_bytes()), Err(JsonError::TooDeep { .. })));
    let shallow = [r#"{"b":"#.repeat(100), "1".to_owned(), r#","a":1}"#.repeat(100)].concat();
    assert_eq!(canonicalize_request(shallow.as_bytes()), canonicalize(shallow.as_bytes()));
    assert!(canonicalize(shallow.as_bytes()).is_ok());
}

#[test]
fn nul_is_refused_in_keys_of_clients_and_in_names() {
    assert_eq!(check_json(br#"{"a\u0000":1}"#), Err(JsonError::NulInKey));
    assert_eq!(check_json(br#"{"a":"\u0000"}"#), Ok(()));
    assert_eq!(canonicalize(br#"{"a\u0000":1}"#).as_deref(), Ok(r#"{"a\u0000":1}"#));
    assert_eq!(check_name("m.room.name"), Ok(()));
    assert_eq!(check_name("a\0"), Err(NameError::Nul));
    assert_eq!(check_name(&"x".repeat(256)), Err(NameError::TooLong));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-9_007_199_254_740_991_i64..=9_007_199_254_740_991).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[\\\\\"\u{0}-\u{20}a]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map("[\\\\\"#\u{0}-\u{20}a-c日]{0,3}", inner, 0..8)
                .prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    /// ruma is the reference.
    #[test]
    fn agrees_with_ruma(value in any_json()) {
        let expected = serde_json::to_string(&CanonicalJsonValue::try_from(value.clone()).unwrap()).unwrap();
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        prop_assert_eq!(canonicalize(pretty.as_bytes()).unwrap(), expected.clone());
        prop_assert_eq!(canonicalize(expected.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn accepts_exactly_what_serde_json_accepts(text in "[\\[\\]{}\",:0-9a-e.\\\\ u-]{0,24}") {
        let ours = check_json(text.as_bytes());
        match serde_json::from_str::<Value>(&text) {
            Ok(_) => prop_assert!(ours.is_ok() || !ours.unwrap_err().is_not_json()),
            // serde_json refuses numbers beyond f64; as text they are fine.
            Err(error) if error.to_string().contains("out of range") => {}
            Err(_) => prop_assert!(ours.is_err()),
        }
    }

    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        drop(check_json(&bytes));
    }
}
