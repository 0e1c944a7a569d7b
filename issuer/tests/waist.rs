//! The waist cannot be bypassed: what would mint without a decision and a durable record does not compile.

#[test]
fn what_bypasses_the_waist_does_not_compile() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/waist/*.rs");
}
