"""The words that the shop's products and users are named with."""

from collections.abc import Mapping, Sequence
from typing import Final

ADJECTIVES: Final[Sequence[str]] = (
    "Adjustable", "Bold", "Classic", "Compact", "Elegant", "Foldable", "Handmade", "Heavy",
    "Light", "Modern", "Natural", "Portable", "Quiet", "Rugged", "Rustic", "Simple",
    "Slim", "Soft", "Sturdy", "Vintage",
)  # fmt: skip

MATERIALS: Final[Sequence[str]] = (
    "Aluminium", "Bamboo", "Canvas", "Ceramic", "Copper", "Cotton", "Glass", "Leather",
    "Linen", "Marble", "Oak", "Recycled", "Steel", "Walnut", "Woollen",
)  # fmt: skip

NOUNS: Final[Mapping[str, Sequence[str]]] = {
    "kitchen": ("Bowl", "Cutlery", "Grinder", "Kettle", "Knife", "Mug", "Pan", "Teapot"),
    "furniture": ("Bench", "Bookcase", "Chair", "Desk", "Drawer", "Shelf", "Sofa", "Stool"),
    "office": ("Binder", "Calendar", "Folder", "Lamp", "Notebook", "Organiser", "Pen", "Stapler"),
    "outdoor": ("Backpack", "Compass", "Hammock", "Lantern", "Tent", "Thermos", "Torch", "Whistle"),
    "sport": ("Bottle", "Dumbbell", "Gloves", "Helmet", "Mat", "Racket", "Rope", "Skates"),
    "toys": ("Blocks", "Doll", "Kite", "Marionette", "Puzzle", "Robot", "Train", "Yoyo"),
    "garden": ("Barrow", "Birdhouse", "Hose", "Planter", "Rake", "Shears", "Spade", "Trellis"),
    "clothing": ("Belt", "Cardigan", "Hat", "Jacket", "Scarf", "Shirt", "Socks", "Wallet"),
}
"""The things the shop sells, by category."""

SEGMENTS: Final[Mapping[str, Sequence[str]]] = {
    "families": ("toys", "kitchen", "clothing"),
    "homemakers": ("kitchen", "furniture", "garden"),
    "professionals": ("office", "furniture", "clothing"),
    "adventurers": ("outdoor", "sport", "clothing"),
    "collectors": ("toys", "office", "garden"),
}
"""The categories that each segment of users buys from."""

FIRST_NAMES: Final[Sequence[str]] = (
    "Amina", "Bruno", "Chiara", "Dmitri", "Elif", "Farid", "Greta", "Hiroshi",
    "Ines", "Jonas", "Kavita", "Liam", "Mei", "Nadia", "Oscar", "Priya",
    "Quentin", "Rosa", "Sven", "Tomas", "Uma", "Victor", "Wanda", "Yusuf",
)  # fmt: skip

LAST_NAMES: Final[Sequence[str]] = (
    "Abbot", "Berg", "Castro", "Dahl", "Evans", "Fischer", "Garcia", "Haddad",
    "Ito", "Jensen", "Kaya", "Lindqvist", "Moreau", "Novak", "Okafor", "Petrov",
    "Rossi", "Sato", "Tanaka", "Ueda", "Varga", "Weber", "Yilmaz", "Zhang",
)  # fmt: skip

NOTIFICATIONS: Final[Sequence[str]] = (
    "{product} is back in stock",
    "{product} costs less than last week",
    "How do you like your {product}?",
    "Others who chose {product} want to hear from you",
    "Your voucher for {product} ends on Sunday",
)
"""What the shop tells its users, about a product."""
