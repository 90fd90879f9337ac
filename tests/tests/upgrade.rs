//! Journals of every earlier format are gone on with: `tests/fixtures`.

use carbontube_tests::{binary, fixture};

#[test]
fn journals_of_earlier_formats_are_gone_on_with() {
    let fixtures = fixture::all().expect("the fixtures can be listed");
    assert!(
        !fixtures.is_empty(),
        "there is a fixture of the first format"
    );
    for path in fixtures {
        let gone_on = fixture::go_on(binary(), &path, false)
            .unwrap_or_else(|error| panic!("{}: {error:#}", path.display()));
        assert!(gone_on.as_told > gone_on.ended, "{gone_on:?}");
    }
}

#[test]
fn exports_of_earlier_formats_are_imported_and_gone_on_with() {
    for path in fixture::all().expect("the fixtures can be listed") {
        fixture::go_on(binary(), &path, true)
            .unwrap_or_else(|error| panic!("{}: {error:#}", path.display()));
    }
}
