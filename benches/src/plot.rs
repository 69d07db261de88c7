//! Throughput and latency over the size of batches and over the length of the log.

use std::path::Path;

use anyhow::anyhow;
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::figure::Figure;

const SIZE: (u32, u32) = (960, 400);
/// A colour for each database.
const DATABASES: [(&str, RGBColor); 2] =
    [("postgres", RGBColor(51, 103, 145)), ("sqlite", RGBColor(214, 120, 20))];

/// A plot of two charts that share what they go over.
struct Plot {
    file: &'static str,
    /// The figure whose details are numbers to go over.
    figure: &'static str,
    over: &'static str,
    charts: [Chart; 2],
}

struct Chart {
    caption: &'static str,
    detail: &'static str,
    /// Where its lines do not come.
    legend: SeriesLabelPosition,
}

const PLOTS: [Plot; 2] = [
    Plot {
        file: "batch-size.svg",
        figure: "batches",
        over: "messages of one transaction at most",
        charts: [
            Chart {
                caption: "throughput, orders/s",
                detail: "orders",
                legend: SeriesLabelPosition::LowerRight,
            },
            Chart {
                caption: "placed to completed, p50, ms",
                detail: "completed/p50",
                legend: SeriesLabelPosition::LowerLeft,
            },
        ],
    },
    Plot {
        file: "log-size.svg",
        figure: "growth",
        over: "events in the log",
        charts: [
            Chart {
                caption: "throughput of the pipeline, events/s",
                detail: "pipeline",
                legend: SeriesLabelPosition::LowerRight,
            },
            Chart {
                caption: "history of one order, p99, ms",
                detail: "audit/p99",
                legend: SeriesLabelPosition::UpperLeft,
            },
        ],
    },
];

/// Draws what was measured into a folder, a file for each plot that there are figures for.
pub(crate) fn draw(folder: &Path, figures: &[Figure]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    for plot in PLOTS {
        if figures.iter().any(|figure| figure.name.contains(&format!("/{}/", plot.figure))) {
            let file = folder.join(plot.file);
            let drawing = SVGBackend::new(&file, SIZE).into_drawing_area();
            // What drawing says goes no further than its own types.
            plot.draw(&drawing, figures).map_err(|cause| anyhow!("{}: {cause}", plot.file))?;
        }
    }
    Ok(())
}

/// A database's name and colour, and its points.
type Line = (&'static str, RGBColor, Vec<(f64, f64)>);

type Drawing<'a> = DrawingArea<SVGBackend<'a>, Shift>;

impl Plot {
    fn draw(
        &self,
        drawing: &Drawing<'_>,
        figures: &[Figure],
    ) -> Result<(), Box<dyn std::error::Error>> {
        drawing.fill(&WHITE)?;
        for (chart, half) in self.charts.iter().zip(drawing.split_evenly((1, 2))) {
            let lines: Vec<Line> = DATABASES
                .iter()
                .map(|(name, colour)| (*name, *colour, self.points(name, chart.detail, figures)))
                .filter(|(.., points)| !points.is_empty())
                .collect();
            chart.draw(&half, self.over, &lines)?;
        }
        Ok(drawing.present()?)
    }

    /// The values of a detail over the numbers in the names of the figures.
    fn points(&self, database: &str, detail: &str, figures: &[Figure]) -> Vec<(f64, f64)> {
        let prefix = format!("{database}/{}/", self.figure);
        let point = |figure: &Figure| {
            let (over, found) = figure.name.strip_prefix(&prefix)?.split_once('/')?;
            (found == detail).then_some((over.parse().ok()?, figure.value))
        };
        figures.iter().filter_map(point).collect()
    }
}

impl Chart {
    fn draw(
        &self,
        area: &Drawing<'_>,
        over: &str,
        lines: &[Line],
    ) -> Result<(), Box<dyn std::error::Error>> {
        let points = || lines.iter().flat_map(|(.., points)| points);
        let least = points().map(|point| point.0).fold(f64::INFINITY, f64::min);
        let most = points().map(|point| point.0).fold(1.0, f64::max);
        let top = points().map(|point| point.1).fold(0.0, f64::max) * 1.1;
        let mut chart = ChartBuilder::on(area)
            .caption(self.caption, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d((least..most * 1.05).log_scale(), 0.0..top)?;
        chart
            .configure_mesh()
            .x_desc(over)
            .x_labels(8)
            .x_label_formatter(&|value| short(*value))
            .y_label_formatter(&|value| short(*value))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (name, colour, points) in lines {
            let style = colour.stroke_width(2);
            chart
                .draw_series(LineSeries::new(points.iter().copied(), style).point_size(3))?
                .label(*name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
        chart
            .configure_series_labels()
            .position(self.legend.clone())
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        Ok(())
    }
}

/// A number of few letters: 2.5k, 10M.
fn short(value: f64) -> String {
    match value {
        large if large >= 1e6 => format!("{}M", rounded(large / 1e6)),
        middle if middle >= 1e3 => format!("{}k", rounded(middle / 1e3)),
        small => rounded(small),
    }
}

fn rounded(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}
