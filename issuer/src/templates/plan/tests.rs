use super::*;

fn example() -> TemplateFile {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/example/templates");
    serde_saphyr::from_str(&std::fs::read_to_string(folder.join("query-orders.yaml")).unwrap()).unwrap()
}

/// What changes where this is done to the example, and the other way round.
fn both_ways(change: impl FnOnce(&mut TemplateFile)) -> (Vec<Change>, Vec<Change>) {
    let (old, mut new) = (example(), example());
    change(&mut new);
    (plan(std::slice::from_ref(&old), std::slice::from_ref(&new)), plan(&[new], &[old]))
}

/// The one change is of this kind: with this sign, and the other one the other way round.
#[track_caller]
fn assert_only(change: impl FnOnce(&mut TemplateFile), direction: Direction, what: &str, words: &str) {
    let back = match direction {
        Direction::Granted => Direction::Taken,
        Direction::Taken => Direction::Granted,
        Direction::Changed => Direction::Changed,
    };
    let (there, back_again) = both_ways(change);
    let [one] = there.as_slice() else { panic!("{there:?}") };
    assert_eq!((one.template.as_str(), one.direction, one.what), ("query-orders", direction, what));
    assert!(one.detail.contains(words), "{one:?}");
    let [one] = back_again.as_slice() else { panic!("{back_again:?}") };
    assert_eq!((one.direction, one.what), (back, what), "{one:?}");
}

#[test]
fn nothing_changes_where_nothing_differs() {
    assert_eq!(plan(&[example()], &[example()]), []);
    // What is said and what is meant where nothing is said are one.
    let (mut said, mut meant) = (example(), example());
    (said.aws.window_seconds, meant.aws.window_seconds) = (Some(300), None);
    assert_eq!(plan(&[said], &[meant]), []);
}

#[test]
fn each_difference_says_whether_it_grants_or_takes() {
    use Direction::{Changed, Granted, Taken};
    let table = "arn:aws:dynamodb:eu-central-1:111122223333:table/orders";
    assert_only(
        |file| file.statements[0].actions.push("dynamodb:BatchGetItem".into()),
        Granted,
        "action",
        &format!("dynamodb:BatchGetItem on {table}"),
    );
    assert_only(
        |file| {
            let actions = &mut file.statements[0].actions;
            actions.retain(|action| action != "dynamodb:Query");
        },
        Taken,
        "action",
        "dynamodb:Query on",
    );
    assert_only(|file| file.aws.window_seconds = Some(60), Taken, "window", "60 s, was 120 s");
    assert_only(|file| file.aws.window_seconds = None, Granted, "window", "300 s, was 120 s");
    assert_only(|file| file.matching.roles.push("intern".into()), Granted, "match roles", "intern");
    assert_only(|file| file.matching.roles.clear(), Granted, "match roles", "any, was support");
    assert_only(|file| file.matching.groups.push("idp|a".into()), Taken, "match groups", "only idp|a");
    let claim = |file: &mut TemplateFile| {
        file.matching.claims.insert("region".into(), vec!["eu".into()]);
    };
    assert_only(claim, Taken, "match claims", "region: only eu");
    assert_only(
        |file| file.matching.chain_depth.maximum = 2,
        Taken,
        "match chain_depth",
        "0 to 2, was 0 to 5",
    );
    assert_only(|file| file.approval = Approval::Confirm, Taken, "approval", "confirm, was none");
    assert_only(
        |file| file.ceiling.actions.push("dynamodb:PutItem".into()),
        Granted,
        "ceiling",
        "dynamodb:PutItem",
    );
    assert_only(
        |file| file.params.get_mut("partition").unwrap().max_length = Some(80),
        Changed,
        "parameter",
        "partition: ",
    );
    assert_only(|file| file.aws.role_arn.push('2'), Changed, "role", "query-orders2, was");
    assert_only(|file| file.matching.server.push('2'), Changed, "match server", "mcp2, was");
}

#[test]
fn a_condition_that_goes_grants() {
    let (gone, back) = both_ways(|file| file.statements[0].conditions.clear());
    assert_eq!(gone.len(), 2, "one for each action: {gone:?}");
    for (gone, back) in gone.iter().zip(&back) {
        assert_eq!((gone.direction, gone.what), (Direction::Granted, "condition"));
        assert!(gone.detail.contains("dynamodb:LeadingKeys") && gone.detail.contains("{partition}"));
        assert_eq!(back.direction, Direction::Taken);
    }
    let (wider, _) = both_ways(|file| {
        file.statements[0].conditions[0].values.push(vec![Part::Literal("all".into())]);
    });
    assert!(
        wider.len() == 2 && wider.iter().all(|change| change.direction == Direction::Granted),
        "{wider:?}"
    );
}

#[test]
fn a_template_that_comes_or_goes_is_shown_whole() {
    let granted = plan(&[], &[example()]);
    let rights: Vec<_> = granted.iter().filter(|change| change.what == "action").collect();
    assert_eq!(rights.len(), 2);
    assert!(rights.iter().all(|change| change.direction == Direction::Granted));
    let taken = plan(&[example()], &[]);
    assert!(
        taken
            .iter()
            .filter(|change| change.what != "condition")
            .all(|change| change.direction == Direction::Taken)
    );
    assert_eq!(taken.len(), granted.len());
}
