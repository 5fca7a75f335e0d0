//! The report as a Markdown table that also reads well in a terminal.

use super::report::{Report, Row, Run, Unit};

pub fn render(report: &Report) -> String {
    let mut lines = vec![headings(report.peer.as_ref())];
    lines.extend(report.subject.rows.iter().map(|row| cells(row, report.peer.as_ref())));
    let mut text = format!(
        "{} on {} cores, generator included{}\n\n",
        report.subject.server,
        report.cores,
        if report.quick { ", quick sizes" } else { "" }
    );
    text.push_str(&aligned(&lines));
    for run in [Some(&report.subject), report.peer.as_ref()].into_iter().flatten() {
        for failure in &run.failures {
            text.push_str(&format!("\nFAILED on {}: {}: {}", run.server, failure.workload, failure.reason));
        }
    }
    text
}

fn headings(peer: Option<&Run>) -> Vec<String> {
    let fixed = ["workload", "result", "goal", "verdict", "ops/s", "p50 ms", "p99 ms", "written/event"];
    let mut headings: Vec<String> = fixed.map(String::from).to_vec();
    if let Some(peer) = peer {
        headings.extend([peer.server.to_owned(), "ratio".to_owned(), format!("{} p50", peer.server)]);
    }
    headings
}

fn cells(row: &Row, peer: Option<&Run>) -> Vec<String> {
    let mut cells = vec![
        row.name.clone(),
        amount(row.amount, row.unit),
        row.goal.map_or(String::new(), |goal| format!("<= {}", amount(goal, row.unit))),
        verdict(row),
        row.per_second.map_or(String::new(), number),
        row.p50_ms.map_or(String::new(), number),
        row.p99_ms.map_or(String::new(), number),
        row.written_bytes_per_operation.map_or(String::new(), number),
    ];
    if let Some(peer) = peer {
        let theirs = peer.row(&row.name);
        cells.push(theirs.map_or(String::new(), |theirs| amount(theirs.amount, theirs.unit)));
        cells.push(theirs.map_or(String::new(), |theirs| ratio(theirs.amount, row.amount)));
        cells.push(theirs.and_then(|theirs| theirs.p50_ms).map_or(String::new(), number));
    }
    cells
}

fn verdict(row: &Row) -> String {
    match row.goal {
        None => String::new(),
        Some(goal) if row.amount <= goal => "met".to_owned(),
        Some(goal) => format!("{} over", ratio(row.amount, goal)),
    }
}

fn ratio(numerator: f64, denominator: f64) -> String {
    if denominator > 0.0 { format!("{}x", number(numerator / denominator)) } else { "-".to_owned() }
}

fn amount(amount: f64, unit: Unit) -> String {
    let unit = match unit {
        Unit::CpuMicroseconds => " µs CPU",
        Unit::Milliseconds => " ms",
        Unit::Seconds => " s",
        Unit::Megabytes => " MB",
        Unit::Bytes => " B",
        Unit::Ratio => "x",
    };
    format!("{}{unit}", number(amount))
}

/// Three significant digits, thousands apart.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => grouped(value.round() as i64),
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn grouped(value: i64) -> String {
    let digits = value.abs().to_string();
    let mut text = String::from(if value < 0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The first line is the heading; the first column is flush left, figures are flush right.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            text.push_str(&if column == 0 {
                format!("| {cell:<width$} ")
            } else {
                format!("| {cell:>width$} ")
            });
        }
        text.push_str("|\n");
        if index == 0 {
            text.push_str(&rule(&widths));
        }
    }
    text
}

fn rule(widths: &[usize]) -> String {
    let cell = |(column, &width): (usize, &usize)| match column {
        0 => format!("|{}", "-".repeat(width + 2)),
        _ => format!("|{}:", "-".repeat(width + 1)),
    };
    widths.iter().enumerate().map(cell).collect::<String>() + "|\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(peer: Option<f64>) -> Report {
        let run = |server, amount| {
            let mut run = Run::new(server);
            run.rows.push(Row::figure("typing", amount, Unit::CpuMicroseconds));
            run
        };
        Report {
            quick: true,
            cores: 2,
            subject: run("myelin", 90.0),
            peer: peer.map(|it| run("synapse", it)),
        }
    }

    #[test]
    fn numbers_keep_three_digits_and_group_thousands() {
        let cases = [(0.0, "0.00"), (0.126, "0.13"), (9.996, "10.0"), (63.26, "63.3"), (99.96, "100")];
        let large = [(917.4, "917"), (1000.0, "1,000"), (929_000.0, "929,000"), (1_234_567.0, "1,234,567")];
        for (value, expected) in cases.into_iter().chain(large).chain([(-1500.0, "-1,500")]) {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn a_missed_goal_says_by_how_much() {
        let text = render(&report(None));
        assert!(text.contains("| typing   | 90.0 µs CPU | <= 60.0 µs CPU | 1.50x over |"), "{text}");
        assert!(!text.contains("synapse"));
    }

    #[test]
    fn a_peer_adds_its_figure_and_the_ratio() {
        let text = render(&report(Some(1800.0)));
        assert!(text.contains("| 1,800 µs CPU | 20.0x |"), "{text}");
    }

    #[test]
    fn every_line_of_the_table_is_as_wide_as_the_others() {
        let text = render(&report(Some(1800.0)));
        let widths: Vec<usize> =
            text.lines().filter(|line| line.starts_with('|')).map(|line| line.chars().count()).collect();
        assert_eq!(widths.len(), 3);
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
    }

    #[test]
    fn failures_are_named() {
        let mut report = report(None);
        report.subject.fail("join", "500 Internal Server Error".to_owned());
        assert!(render(&report).contains("FAILED on myelin: join: 500 Internal Server Error"));
        assert_eq!(report.failures(), 1);
    }
}
