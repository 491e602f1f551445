use super::*;

fn outcome(fence: bool, operations: Vec<Operation>, reply: &str) -> Outcome {
    guarded(Leading { fence, guards: 0 }, operations, reply)
}

fn guarded(leading: Leading, operations: Vec<Operation>, reply: &str) -> Outcome {
    let raw: Box<RawValue> = serde_json::from_str(reply).expect(reply);
    let expects_a_row: Vec<bool> = operations.iter().map(Operation::expects_a_row).collect();
    super::outcome(leading, &expects_a_row, &raw)
}

fn delete() -> Operation {
    Operation::Delete { table: "Logical_Switch_Port", uuid: Uuid::nil() }
}

#[test]
fn operations_are_written_as_the_rfc_has_them() {
    let uuid = Uuid::from_u128(7);
    let operations = [
        Operation::Insert { table: "T", uuid, row: vec![("name", Datum::One("a".into()))] },
        Operation::Mutate {
            table: "T",
            uuid,
            mutations: vec![
                Mutation { column: "m", mutator: Mutator::Delete, value: Datum::texts(["k"]) },
                Mutation { column: "m", mutator: Mutator::Insert, value: Datum::map([("k", "v")]) },
            ],
        },
        Operation::Wait {
            table: "T",
            conditions: vec![Condition { column: "m", function: Function::Includes, value: Datum::map([("k", "v")]) }],
            columns: vec!["_uuid"],
            until: Until::NotEqual,
            rows: vec![],
        },
    ];
    let id = "00000000-0000-0000-0000-000000000007";
    let expected = [
        format!(r#"{{"op":"insert","table":"T","uuid":"{id}","row":{{"name":"a"}}}}"#),
        format!(
            r#"{{"op":"mutate","table":"T","where":[["_uuid","==",["uuid","{id}"]]],"mutations":[["m","delete",["set",["k"]]],["m","insert",["map",[["k","v"]]]]]}}"#
        ),
        r#"{"op":"wait","timeout":0,"table":"T","where":[["m","includes",["map",[["k","v"]]]]],"columns":["_uuid"],"until":"!=","rows":[]}"#
            .to_owned(),
    ];
    for (operation, expected) in operations.iter().zip(expected) {
        assert_eq!(serde_json::to_string(operation).expect("json"), expected);
    }
}

#[test]
fn an_error_names_its_operation() {
    let reply = r#"[{},{"count":1},{"error":"constraint violation","details":"no"},null]"#;
    match outcome(true, vec![delete(), delete(), delete()], reply) {
        Outcome::Rejected(Rejection { operation, kind, details }) => {
            assert_eq!((operation, kind), (Some(1), RejectionKind::ConstraintViolation));
            assert_eq!(details, "no");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_error_after_the_last_result_is_the_commits() {
    let reply = r#"[{"count":1},{"error":"referential integrity violation"}]"#;
    match outcome(false, vec![delete()], reply) {
        Outcome::Rejected(Rejection { operation: None, kind: RejectionKind::ReferentialIntegrity, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_failed_fence_is_no_rejection() {
    assert!(matches!(outcome(true, vec![delete()], r#"[{"error":"timed out"},null]"#), Outcome::Fenced));
    assert!(matches!(outcome(false, vec![delete()], r#"[{"error":"timed out"}]"#), Outcome::Rejected(_)));
}

#[test]
fn a_failed_guard_differs_from_a_failed_fence_and_from_a_failed_operation() {
    let after = |leading, reply| guarded(leading, vec![delete()], reply);
    let (behind, alone) = (Leading { fence: true, guards: 2 }, Leading { fence: false, guards: 1 });
    assert!(matches!(after(behind, r#"[{"error":"timed out"},null,null,null]"#), Outcome::Fenced));
    assert!(matches!(after(behind, r#"[{},{"error":"timed out"},null,null]"#), Outcome::Raced));
    assert!(matches!(after(behind, r#"[{},{},{"error":"timed out"},null]"#), Outcome::Raced));
    assert!(matches!(after(alone, r#"[{"error":"timed out"},null]"#), Outcome::Raced));
    let rejected = after(behind, r#"[{},{},{},{"error":"timed out"}]"#);
    assert!(matches!(rejected, Outcome::Rejected(Rejection { operation: Some(0), .. })), "{rejected:?}");
    match after(behind, r#"[{},{},{},{"count":0}]"#) {
        Outcome::Committed { missed, results } => assert_eq!((missed, results.len()), (vec![0], 1)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_operation_on_a_deleted_row_is_reported() {
    match outcome(true, vec![delete(), delete()], r#"[{},{"count":1},{"count":0}]"#) {
        Outcome::Committed { missed, .. } => assert_eq!(missed, [1]),
        other => panic!("{other:?}"),
    }
}
