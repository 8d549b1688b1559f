//! Plots as SVG.

use std::fmt::Write as _;

/// A line of a plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// What stands beside it.
    pub name: String,
    /// Its points, from the left to the right; above zero upwards.
    pub points: Vec<(f64, f64)>,
}

/// A bar of a plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// What stands before it.
    pub name: String,
    /// How long it is, above zero.
    pub value: f64,
    /// What stands behind it.
    pub text: String,
}

/// Pixels.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 220.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 50.0;
const BAR: f64 = 22.0;
const BAR_NAMES: f64 = 480.0;
const BAR_TEXTS: f64 = 240.0;
/// Told apart by those who see no colours by their order too.
const COLOURS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
];

/// Lines over time: x from 0, y by its logarithm.
#[must_use]
pub fn lines(title: &str, x_label: &str, y_label: &str, series: &[Series]) -> String {
    let points = || series.iter().flat_map(|line| &line.points);
    let x_end = points().fold(0.0_f64, |end, point| end.max(point.0));
    let seen = || points().map(|point| point.1).filter(|y| *y > 0.0);
    let low = seen()
        .fold(f64::INFINITY, f64::min)
        .log10()
        .floor()
        .min(6.0);
    let high = seen().fold(1.0, f64::max).log10().ceil().max(low + 1.0);
    let (x_end, x_step) = rounded(x_end);
    let x_at = |x: f64| LEFT + (WIDTH - LEFT - RIGHT) * x / x_end;
    let y_at =
        |y: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y.log10() - low) / (high - low);
    let mut text = begin(WIDTH, HEIGHT, title);
    // Writing into a String cannot fail, here and below.
    let mut power = low;
    while power <= high {
        let y = y_at(10_f64.powf(power));
        let _ = writeln!(
            text,
            r##"<line x1="{LEFT}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}" stroke="#ddd"/><text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"##,
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0,
            10_f64.powf(power)
        );
        power += 1.0;
    }
    let mut x = 0.0;
    while x <= x_end * 1.001 {
        let _ = writeln!(
            text,
            r##"<line x1="{0:.1}" x2="{0:.1}" y1="{1:.1}" y2="{2:.1}" stroke="#888"/><text x="{0:.1}" y="{3:.1}" text-anchor="middle">{4}</text>"##,
            x_at(x),
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 5.0,
            HEIGHT - BOTTOM + 20.0,
            (x * 100.0).round() / 100.0
        );
        x += x_step;
    }
    let _ = writeln!(
        text,
        r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">{}</text><text x="{LEFT}" y="{:.1}" text-anchor="middle">{}</text>"#,
        x_at(x_end / 2.0),
        HEIGHT - 10.0,
        escape(x_label),
        TOP - 10.0,
        escape(y_label)
    );
    for (index, line) in series.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let path: Vec<String> = line
            .points
            .iter()
            .filter(|point| point.1 > 0.0)
            .map(|point| format!("{:.1},{:.1}", x_at(point.0), y_at(point.1)))
            .collect();
        let y = TOP + 20.0 * index as f64;
        let _ = writeln!(
            text,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/><line x1="{:.1}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}" stroke="{colour}" stroke-width="3"/><text x="{:.1}" y="{:.1}">{}</text>"#,
            path.join(" "),
            WIDTH - RIGHT + 15.0,
            WIDTH - RIGHT + 35.0,
            WIDTH - RIGHT + 42.0,
            y + 4.0,
            escape(&line.name)
        );
    }
    text + "</svg>\n"
}

/// Bars below each other, and a line at 1; those that end before it have another colour.
#[must_use]
pub fn bars(title: &str, bars: &[Bar]) -> String {
    let longest = bars.iter().fold(1.0_f64, |end, bar| end.max(bar.value));
    let (end, step) = rounded(longest);
    let width = BAR_NAMES + 400.0 + BAR_TEXTS;
    let bottom = TOP + BAR * bars.len() as f64;
    let at = |value: f64| BAR_NAMES + 400.0 * value / end;
    let mut text = begin(width, bottom + BOTTOM, title);
    let mut value = 0.0;
    while value <= end * 1.001 {
        let _ = writeln!(
            text,
            r##"<line x1="{0:.1}" x2="{0:.1}" y1="{TOP}" y2="{bottom:.1}" stroke="#ddd"/><text x="{0:.1}" y="{1:.1}" text-anchor="middle">{2}</text>"##,
            at(value),
            bottom + 18.0,
            (value * 100.0).round() / 100.0
        );
        value += step;
    }
    for (index, bar) in bars.iter().enumerate() {
        let y = TOP + BAR * index as f64;
        let colour = COLOURS[usize::from(bar.value < 1.0)];
        let _ = writeln!(
            text,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{}</text><rect x="{BAR_NAMES}" y="{:.1}" width="{:.1}" height="{:.1}" fill="{colour}"/><text x="{:.1}" y="{:.1}">{}</text>"#,
            BAR_NAMES - 8.0,
            y + 15.0,
            escape(&bar.name),
            y + 3.0,
            at(bar.value) - BAR_NAMES,
            BAR - 6.0,
            at(bar.value) + 6.0,
            y + 15.0,
            escape(&bar.text)
        );
    }
    let _ = writeln!(
        text,
        r##"<line x1="{0:.1}" x2="{0:.1}" y1="{1:.1}" y2="{bottom:.1}" stroke="#000" stroke-width="2"/>"##,
        at(1.0),
        TOP - 6.0
    );
    text + "</svg>\n"
}

/// The end of an axis that reaches `longest`, and the step between its marks: three to eight of them,
/// at round figures.
fn rounded(longest: f64) -> (f64, f64) {
    let longest = longest.max(0.01);
    let small = 10_f64.powf(longest.log10().floor() - 1.0);
    let mut steps = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| small * factor);
    let step = steps
        .find(|step| longest <= 8.0 * step)
        .unwrap_or(20.0 * small);
    ((longest / step).ceil() * step, step)
}

fn begin(width: f64, height: f64, title: &str) -> String {
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">
<rect width="{width}" height="{height}" fill="#fff"/>
<text x="{:.1}" y="22" text-anchor="middle" font-size="16">{}</text>
"##,
        width / 2.0,
        escape(title)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_round_marks_and_reaches_the_longest() {
        for longest in [0.3, 1.0, 2.1, 9.9, 15.0, 17.3, 100.0, 1_234.0] {
            let (end, step) = rounded(longest);
            assert!(end >= longest && end < longest + step * 1.001, "{longest}");
            let marks = end / step;
            assert!((2.9..=8.1).contains(&marks), "{longest}: {marks} marks");
        }
    }

    #[test]
    fn names_cannot_break_the_file() {
        let line = Series {
            name: "a<b> & \"c\"".to_owned(),
            points: vec![(0.0, 10.0), (1.0, 0.0), (2.0, 200.0)],
        };
        let text = lines("t", "s", "blocks/s", &[line]);
        assert!(text.contains("a&lt;b&gt; &amp; &quot;c&quot;"), "{text}");
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        // The point without a logarithm is not drawn.
        let path = text.split("points=\"").nth(1).unwrap();
        assert_eq!(path.split('"').next().unwrap().split(' ').count(), 2);
    }

    #[test]
    fn bars_that_end_before_the_line_have_another_colour() {
        let bar = |value| Bar {
            name: "x".to_owned(),
            value,
            text: "y".to_owned(),
        };
        let text = bars("t", &[bar(0.5), bar(1.0), bar(3.0)]);
        assert_eq!(text.matches(COLOURS[1]).count(), 1);
        assert_eq!(text.matches(COLOURS[0]).count(), 2);
    }

    #[test]
    fn nothing_measured_is_a_plot_without_lines() {
        let empty = lines("t", "s", "blocks/s", &[]);
        assert!(
            !empty.contains("NaN") && !empty.contains("inf") && empty.ends_with("</svg>\n"),
            "{empty}"
        );
    }
}
