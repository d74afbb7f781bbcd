"""What the tracker shows in a Streamlit app: the browser client, the waiting room, the capacity box."""

from presence_tracker.streamlit_ui.box import capacity_box
from presence_tracker.streamlit_ui.client import embed, place_client, update_client
from presence_tracker.streamlit_ui.room import require_interview, waiting_room

__all__ = ["capacity_box", "embed", "place_client", "require_interview", "update_client", "waiting_room"]
