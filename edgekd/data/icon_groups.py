"""Hand-made knowledge about icon names: what is left out, and which names mean one concept.

The embedded icons are split by *concept*, so that no concept is seen in training and met again in
a test episode. Three rules join two names: a shared word (``gear`` and ``gears``, ``arrow-up`` and
``arrow-left``), drawings that look alike, and the lists below, made by going through all names.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["BRANDS", "MODIFIERS", "SYNONYMS", "words"]

BRANDS = frozenset(
    {
        "airplay",
        "android",
        "apple",
        "bluetooth",
        "facebook",
        "github",
        "google",
        "instagram",
        "linkedin",
        "paypal",
        "twitter",
        "youtube",
    }
)
"""Names that are a company's mark; a permissive licence on the drawing does not cover the mark."""

MODIFIERS = frozenset(
    {
        "alt",
        "all",
        "closed",
        "down",
        "empty",
        "full",
        "half",
        "in",
        "incoming",
        "left",
        "low",
        "mute",
        "off",
        "on",
        "open",
        "out",
        "outgoing",
        "right",
        "up",
    }
)
"""Words that only say which state or direction of a thing is drawn, and so join nothing."""

SYNONYMS: tuple[frozenset[str], ...] = tuple(
    frozenset(line.split())
    for line in """
    accessibility account female group male person user users wheelchair
    activity pulse
    add close cancel ban block cross x times remove minus plus
    airplane paper-plane plane send
    alarm alarm-clock bell clock history notification stopwatch time timer watch
    album disc image images photo picture
    align-center align-justify align-left align-right list menu paragraph
    ambulance bus car taxi train truck
    app apps browser dashboard grid layout table window
    archive box cube inbox package
    arrow-down arrow-left arrow-right arrow-up caret-down caret-left caret-right caret-up
    arrow-down chevron-down trending-down
    arrow-up chevron-up trending-up
    arrow-right forward
    arrow-left backward
    attachment paperclip
    backspace bin delete trash remove
    backward eject fast-forward forward next pause play previous record rewind stop
    badge certificate medal id-card
    bag basket cart shop shopping-bag shopping-cart store
    bank building factory hospital library
    bar-chart chart chart-bar chart-line chart-pie graph pie-chart
    barcode qr-code scan
    baseball basketball
    beaker flask test-tube
    beer coffee cup
    bitcoin coin coins dollar euro money
    bold italic strikethrough underline
    bolt flash lightning
    book library notebook
    bookmark favorite favourite label tag
    brush edit pen pencil write
    camera film movie video webcam
    cast desktop laptop monitor screen tv
    chat comment comments message
    check check-circle check-square checkbox done tick
    checkbox square stop
    circle record
    circle hexagon octagon shapes square triangle
    clipboard copy duplicate paste
    cloud cloudy cloud-rain snow snowflake
    code terminal
    cog gear options preferences settings tools wrench
    cpu chip
    cursor hand mouse pointer
    cut scissors
    database hard-drive server storage
    document file files newspaper note notebook page receipt
    door-open exit login logout
    download export external-link import share upload
    duplicate files copy layers
    earth globe language planet translate world
    envelope envelope-open inbox mail mail-open message send
    exclamation-triangle info triangle warning
    expand fullscreen maximize minimize move
    eye eye-closed eye-off eye-slash view visible
    fire flame
    git-branch git-merge merge
    hand thumbs-down thumbs-up
    hash hashtag
    headphones headset help info question support
    home house
    image picture photo
    label tag tags
    link unlink
    location map map-pin pin marker
    lock lock-open unlock
    magnifier search zoom-in zoom-out
    mic microphone
    mobile phone tablet
    music music-note
    plug power
    print printer
    radar target
    radio rss signal wifi
    recycle redo refresh reload repeat reply sync undo
    save floppy
    scale weight
    sort shuffle
    sparkles star star-half
    speaker sound volume volume-off
    sunrise sunset sun
    subscript superscript
    timeline chart-line activity
    arrow-up redo undo reply download upload expand shuffle sort swap
    tool tools hammer
    """.strip().splitlines()
)
"""Names, a line each, that stand for one concept or are drawn with the same picture."""


def words(name: str) -> Iterable[str]:
    """Yield the words of an icon name that carry its concept, in the singular.

    >>> list(words("chart-bars-off"))
    ['chart', 'bar']
    """
    for word in name.split("-"):
        if word not in MODIFIERS:
            yield word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] != "s" else word
