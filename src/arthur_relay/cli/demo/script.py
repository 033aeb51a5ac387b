"""What is said in the demo: a support conversation, and answers to whatever else is asked."""

from typing import Final
from zlib import crc32

SCRIPT: Final = (
    (
        "Hi! My parcel was due on Tuesday. Where is it?",
        (
            "Good morning! I have found your parcel: it left our warehouse on Monday and"
            " has been at the sorting centre since Tuesday evening. That is one day longer"
            " than it should be."
        ),
    ),
    (
        "Why is it still there?",
        (
            "The centre reports a backlog after Monday's storm. Parcels are handled in"
            " the order in which they arrived, and yours is among the next two hundred."
        ),
    ),
    (
        "When will it be here, then?",
        (
            "Most likely tomorrow between nine and noon. If it has not been scanned by"
            " eight in the morning I would rather send you a new one than let you wait."
        ),
    ),
    (
        "It is a birthday present for Saturday. Can I rely on that?",
        (
            "I understand, so let us not rely on luck. I can reserve a second one in the"
            " shop nearest to you, at no cost, and cancel it as soon as the parcel is in"
            " your hands."
        ),
    ),
    (
        "Yes, please. Which shop is that?",
        (
            "The one at the old market hall, open until seven tonight and until six on"
            " Saturday. The reservation is in your name, and the staff will ask for the"
            " last digits of your order."
        ),
    ),
    (
        "Do I pay again if I collect it there?",
        (
            "No. Your first payment counts for whichever one you keep. If both should"
            " reach you, hand one to the courier or to any of our shops within thirty"
            " days."
        ),
    ),
    (
        "Could they wrap it as well?",
        (
            "Gladly! I have added a note: dark green paper, a plain ribbon, no price on"
            " it. It takes ten minutes, so it will be ready when you come."
        ),
    ),
    (
        "Can you put a card in it?",
        (
            "Of course. Send me the text in a line or two, and somebody with beautiful"
            " handwriting will copy it. I only keep it until the card has been written."
        ),
    ),
    (
        "Write: Happy birthday, Ada. May the wind be always behind you.",
        (
            "Noted, word for word: Happy birthday, Ada. May the wind be always behind"
            " you. That must be the kite in the order, I suppose. She will love it."
        ),
    ),
    (
        "It is! What if there is no wind on Saturday?",
        (
            "The forecast for Saturday says a steady breeze from the west, three to four,"
            " dry until the evening. The meadow above the river is a good place for a"
            " first flight."
        ),
    ),
    (
        "You thought of everything. Anything I should know?",
        (
            "Only that the line comes with thirty metres, and that beginners are happier"
            " with twenty. And please keep away from power lines, however lonely they"
            " look."
        ),
    ),
    (
        "Thank you, that was a great help.",
        (
            "It was a pleasure. The reservation is confirmed, the parcel is being"
            " watched, and you will hear from me tomorrow at eight. Have a wonderful"
            " Saturday, both of you!"
        ),
    ),
)
"""The built-in conversation: what the user says, and what the model answers."""

_ANSWERS: Final = (
    (
        "Here is a short answer first, and the reasons for it after that. The main point"
        " is simple, and most of what is said against it holds only in special cases."
    ),
    (
        "There are three ways to look at this. The first is the usual one, the second is"
        " more careful, and the third is what I would do if it were mine to decide."
    ),
    (
        "Let us take it step by step. We begin with what is known, write down what is"
        " asked for, and find that only one of the possible paths leads from here to"
        " there."
    ),
    (
        "A good question, and one that deserves more than a yes or a no. It depends on"
        " how much time you have, on who will read it, and on what may go wrong."
    ),
    (
        "Imagine a quiet harbour in the morning: boats, gulls, a man who mends a net."
        " That is the picture that I would start from, and the rest follows almost by"
        " itself."
    ),
)


def conversation() -> tuple[str, ...]:
    """Return what the user says in the built-in conversation."""
    return tuple(question for question, _ in SCRIPT)


def answer_to(question: str) -> str:
    """Return the answer to a question: the same one each time, on any machine."""
    for asked, answer in SCRIPT:
        if asked == question:
            return answer
    # Not hash(): that differs between processes.
    return _ANSWERS[crc32(question.encode("utf-8", "replace")) % len(_ANSWERS)]
