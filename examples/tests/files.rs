//! The handlers that work on files, on the sample files and on broken ones.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use windlass_examples::{
    AggregateDataset, BuildReport, MakeThumbnails, Problem, Workspace, aggregate, report, thumbnails,
};

const NEVER: &dyn Fn() -> bool = &|| false;

struct Place {
    folder: tempfile::TempDir,
    workspace: Workspace,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::with_samples(folder.path()).unwrap();
        Self { folder, workspace }
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.folder.path().join("files").join(name), content).unwrap();
    }

    fn output(&self, path: &str) -> Vec<u8> {
        fs::read(self.folder.path().join("output").join(path)).unwrap()
    }

    /// Everything in the output, by path.
    fn outputs(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.folder.path().join("output")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path)
                } else {
                    found.insert(path.clone(), fs::read(path).unwrap()).map_or((), drop)
                }
            }
        }
        found
    }
}

fn picture(image: &str, sizes: &[u32]) -> MakeThumbnails {
    MakeThumbnails { image: image.into(), sizes: sizes.into() }
}

fn orders(orders: &str, group_by: &str) -> BuildReport {
    BuildReport { orders: orders.into(), group_by: group_by.into() }
}

fn dataset(dataset: &str, group_by: &str, value: &str) -> AggregateDataset {
    AggregateDataset { dataset: dataset.into(), group_by: group_by.into(), value: value.into() }
}

#[test]
fn thumbnails_of_both_formats_keep_their_proportions() {
    let place = Place::new();
    let made = thumbnails(&place.workspace, &picture("photo.jpg", &[120, 32]), NEVER).unwrap().thumbnails;
    let sizes: Vec<_> = made.iter().map(|one| (one.path.as_str(), one.width, one.height)).collect();
    assert_eq!(sizes, [("thumbnails/photo.jpg/120.jpg", 120, 80), ("thumbnails/photo.jpg/32.jpg", 32, 21)]);

    let made = thumbnails(&place.workspace, &picture("logo.png", &[64, 4096]), NEVER).unwrap().thumbnails;
    let sizes: Vec<_> = made.iter().map(|one| (one.width, one.height)).collect();
    assert_eq!(sizes, [(64, 64), (256, 256)], "never larger than the picture");
    for one in &made {
        let read = image::load_from_memory(&place.output(&one.path)).unwrap();
        assert_eq!((read.width(), read.height()), (one.width, one.height));
        assert_eq!(read.to_rgba8().get_pixel(0, 0).0[3], 0, "the corners stay transparent");
    }
}

#[test]
fn a_report_adds_up_to_what_the_orders_say() {
    let place = Place::new();
    let made = report(&place.workspace, &orders("orders.csv", "region"), NEVER).unwrap();

    // Added up in another way: by hand from the text, whose quoted fields are all before the last two.
    let text = String::from_utf8(fs::read(place.folder.path().join("files/orders.csv")).unwrap()).unwrap();
    let rows: Vec<_> = text.lines().skip(1).map(|line| line.rsplitn(3, ',').collect::<Vec<_>>()).collect();
    let cents: u64 = rows
        .iter()
        .map(|row| row[1].parse::<u64>().unwrap() * row[0].replace('.', "").parse::<u64>().unwrap())
        .sum();
    assert_eq!((made.orders, made.revenue.replace('.', "")), (rows.len() as u64, cents.to_string()));
    assert!(rows.len() >= 300);

    let html = String::from_utf8(place.output(&made.path)).unwrap();
    assert_eq!(html.matches("<tr><td>").count(), 4 + 1, "four regions and the total: {html}");
    assert!(
        html.contains(&format!("<tr><td>Total</td><td>{}</td>", made.orders)) && html.contains(&made.revenue)
    );
    let by_customer = report(&place.workspace, &orders("orders.csv", "customer"), NEVER).unwrap();
    assert!(
        String::from_utf8(place.output(&by_customer.path)).unwrap().contains("<td>Ahlers &amp; Sons</td>")
    );
}

#[test]
fn aggregates_are_exact_and_percentiles_close() {
    let place = Place::new();
    let made =
        aggregate(&place.workspace, &dataset("measurements.jsonl", "sensor", "temperature"), NEVER).unwrap();
    assert_eq!((made.rows, made.groups), (600, 4));
    let document: serde_json::Value = serde_json::from_slice(&place.output(&made.path)).unwrap();

    let text = fs::read_to_string(place.folder.path().join("files/measurements.jsonl")).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut mast: Vec<f64> =
        rows.filter(|row| row["sensor"] == "mast").map(|row| row["temperature"].as_f64().unwrap()).collect();
    mast.sort_by(f64::total_cmp);
    let found = |name: &str| document["groups"]["mast"][name].as_f64().unwrap();
    let close =
        |found: f64, expected: f64, share: f64| (found - expected).abs() <= expected.abs() * share + 1e-9;
    assert_eq!(document["groups"]["mast"]["count"], mast.len());
    assert_eq!((found("min"), found("max")), (mast[0], mast[mast.len() - 1]));
    assert!(
        close(found("sum"), mast.iter().sum(), 1e-9)
            && close(found("mean"), found("sum") / mast.len() as f64, 1e-9)
    );
    for (name, percent) in [("p50", 50), ("p90", 90), ("p99", 99)] {
        let exact = mast[(percent * mast.len()).div_ceil(100) - 1];
        assert!(close(found(name), exact, 0.01), "{name}: {} for {exact}", found(name));
    }

    let made = aggregate(&place.workspace, &dataset("orders.csv", "region", "quantity"), NEVER).unwrap();
    assert_eq!((made.rows, made.groups), (360, 4));
}

#[test]
fn a_second_attempt_changes_nothing() {
    let place = Place::new();
    let attempt = || {
        let made = thumbnails(&place.workspace, &picture("photo.jpg", &[64, 16]), NEVER).unwrap();
        let built = report(&place.workspace, &orders("orders.csv", "product"), NEVER).unwrap();
        let aggregated =
            aggregate(&place.workspace, &dataset("measurements.jsonl", "sensor", "humidity"), NEVER).unwrap();
        (made, built, aggregated, place.outputs())
    };
    let first = attempt();
    assert_eq!(first.3.len(), 4, "and no temporary file is left: {:?}", first.3.keys());
    assert_eq!(first, attempt());
}

#[test]
fn a_missing_file_may_still_arrive() {
    let place = Place::new();
    let problems = [
        thumbnails(&place.workspace, &picture("later.png", &[64]), NEVER).unwrap_err(),
        report(&place.workspace, &orders("later.csv", "region"), NEVER).unwrap_err(),
        aggregate(&place.workspace, &dataset("later.jsonl", "a", "b"), NEVER).unwrap_err(),
    ];
    for problem in problems {
        assert!(matches!(problem, Problem::Io { .. }) && !problem.is_permanent(), "{problem}");
        assert!(problem.to_string().starts_with("later."), "{problem}");
    }
}

#[test]
fn no_path_leaves_the_workspace() {
    let place = Place::new();
    fs::write(place.folder.path().join("secret.csv"), "region,quantity,unit_price\n").unwrap();
    let inside = place.folder.path().join("files");
    std::os::unix::fs::symlink(place.folder.path().join("secret.csv"), inside.join("link.csv")).unwrap();
    std::os::unix::fs::symlink(place.folder.path(), inside.join("linked")).unwrap();
    let absolute = inside.join("orders.csv").display().to_string();
    let long = "x".repeat(5000);
    let paths = [
        "../secret.csv",
        "a/../../secret.csv",
        "./../secret.csv",
        "linked/secret.csv",
        "link.csv",
        "/etc/passwd",
        "",
        ".",
        "..",
        "orders.csv\0",
        absolute.as_str(),
        long.as_str(),
    ];
    for path in paths {
        for problem in [
            thumbnails(&place.workspace, &picture(path, &[64]), NEVER).unwrap_err(),
            report(&place.workspace, &orders(path, "region"), NEVER).unwrap_err(),
            aggregate(&place.workspace, &dataset(path, "a", "b"), NEVER).unwrap_err(),
        ] {
            assert!(matches!(problem, Problem::Escapes(_)) && problem.is_permanent(), "{path}: {problem}");
        }
    }
    // Nor does an output, whose name has parts that come from the payload or are on the disk.
    place.file("tricky.csv", "../../../x,quantity,unit_price\na,1,1\n");
    assert!(matches!(
        report(&place.workspace, &orders("tricky.csv", "../../../x"), NEVER),
        Err(Problem::Escapes(_))
    ));
    std::os::unix::fs::symlink(place.folder.path(), place.folder.path().join("output/reports")).unwrap();
    assert!(matches!(
        report(&place.workspace, &orders("orders.csv", "region"), NEVER),
        Err(Problem::Escapes(_))
    ));
}

#[test]
fn broken_pictures_and_sizes_are_refused_for_good() {
    let place = Place::new();
    let whole = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("data/photo.jpg")).unwrap();
    let png = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("data/logo.png")).unwrap();
    place.file("head.jpg", &whole[..300]);
    place.file("half.png", &png[..png.len() / 2]);
    place.file("text.png", "no picture");
    place.file("empty.png", "");
    // A PNG that says it is 40,000 pixels wide and high, with a checksum to match: a few kilobytes that ask for 6 GB.
    let mut huge = png.clone();
    huge[16..24].copy_from_slice(&[40_000_u32.to_be_bytes(); 2].concat());
    huge[29..33].copy_from_slice(&[0x51, 0x0c, 0x0e, 0x05]);
    place.file("huge.png", huge);
    let problem = thumbnails(&place.workspace, &picture("huge.png", &[64]), NEVER).unwrap_err();
    assert!(problem.to_string().contains("limit"), "{problem}");
    fs::create_dir(place.folder.path().join("files/folder.png")).unwrap();
    for image in ["head.jpg", "half.png", "text.png", "empty.png", "huge.png", "folder.png", "orders.csv"] {
        let problem = thumbnails(&place.workspace, &picture(image, &[64]), NEVER).unwrap_err();
        assert!(matches!(problem, Problem::Content { .. }) && problem.is_permanent(), "{image}: {problem:?}");
    }
    for sizes in [vec![], vec![0], vec![5000], vec![64; 17]] {
        let problem = thumbnails(&place.workspace, &picture("logo.png", &sizes), NEVER).unwrap_err();
        assert!(matches!(problem, Problem::Payload(_)) && problem.is_permanent(), "{problem:?}");
    }
    assert!(place.outputs().is_empty());
}

#[test]
fn a_broken_row_is_named_by_its_line() {
    let place = Place::new();
    let head = "region,quantity,unit_price\nBaltic,1,2.00\n";
    let rows: [&[u8]; 5] =
        [b"Baltic,1\n", b"Baltic,many,2.00\n", b"Baltic,1,2.005\n", b"Baltic,-1,2\n", b"\xff,1,2\n"];
    for (index, row) in rows.iter().enumerate() {
        place.file("broken.csv", [head.as_bytes(), row].concat());
        let problem = report(&place.workspace, &orders("broken.csv", "region"), NEVER).unwrap_err();
        assert!(
            problem.is_permanent() && problem.to_string().starts_with("broken.csv, line 3: "),
            "{index}: {problem}"
        );
    }
    let problem = report(&place.workspace, &orders("orders.csv", "colour"), NEVER).unwrap_err();
    assert!(problem.is_permanent() && problem.to_string().contains(r#"no column "colour""#), "{problem}");

    for row in [
        "not json",
        "[1]",
        r#"{"a": "x"}"#,
        r#"{"a": "x", "b": "1"}"#,
        r#"{"a": null, "b": 1}"#,
        r#"{"b": 1}"#,
    ] {
        place.file("broken.jsonl", format!("{{\"a\": \"x\", \"b\": 1}}\n\n{row}\n"));
        let problem = aggregate(&place.workspace, &dataset("broken.jsonl", "a", "b"), NEVER).unwrap_err();
        assert!(
            problem.is_permanent() && problem.to_string().starts_with("broken.jsonl, line 3: "),
            "{row}: {problem}"
        );
    }
    for value in ["", "x", "NaN", "inf"] {
        place.file("broken.csv", format!("a,b\nx,1\nx,{value}\n"));
        let problem = aggregate(&place.workspace, &dataset("broken.csv", "a", "b"), NEVER).unwrap_err();
        assert!(
            problem.is_permanent() && problem.to_string().starts_with("broken.csv, line 3: "),
            "{value}: {problem}"
        );
    }
    place.file("long.jsonl", format!("{{\"a\": \"{}\", \"b\": 1}}", "x".repeat(2 * 1024 * 1024)));
    let problem = aggregate(&place.workspace, &dataset("long.jsonl", "a", "b"), NEVER).unwrap_err();
    assert!(problem.is_permanent() && problem.to_string().contains("line 1: longer"), "{problem}");
    place.file("large.csv", "a,b\nx,1.7e308\nx,1.7e308\n");
    let problem = aggregate(&place.workspace, &dataset("large.csv", "a", "b"), NEVER).unwrap_err();
    assert!(problem.is_permanent() && problem.to_string().contains("too large"), "{problem}");
}

#[test]
fn a_cancelled_attempt_stops_and_leaves_nothing() {
    let place = Place::new();
    let stop: &dyn Fn() -> bool = &|| true;
    let problems = [
        thumbnails(&place.workspace, &picture("photo.jpg", &[64]), stop).unwrap_err(),
        report(&place.workspace, &orders("orders.csv", "region"), stop).unwrap_err(),
        aggregate(&place.workspace, &dataset("orders.csv", "region", "quantity"), stop).unwrap_err(),
    ];
    problems.iter().for_each(|problem| assert!(matches!(problem, Problem::Stopped), "{problem}"));
    assert!(place.outputs().is_empty());
}

#[test]
fn samples_do_not_replace_what_is_there() {
    let place = Place::new();
    place.file("orders.csv", "mine");
    Workspace::with_samples(place.folder.path()).unwrap();
    assert_eq!(fs::read(place.folder.path().join("files/orders.csv")).unwrap(), b"mine");
    assert_eq!(fs::read_dir(place.folder.path().join("files")).unwrap().count(), 4);
}
