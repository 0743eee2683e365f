"""What the daemon tells the house over MQTT: states, alarms, Home Assistant discovery."""
